"""Synthesis: a model writes questions about captions, and chains for questions; every input is accounted for."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from sari_jax.corpus.captions import Caption
from sari_jax.corpus.synthesize.cache import Reply
from sari_jax.corpus.synthesize.chains import parse_free, parse_structured
from sari_jax.corpus.synthesize.endpoint import Endpoint, NoReply
from sari_jax.corpus.synthesize.questions import Question, balanced, draw, parse_question, shuffled
from sari_jax.corpus.synthesize.templates import Prompts
from sari_jax.data.ledger import Drop, Ledger
from sari_jax.data.records import Clip, Record

CHAINS = ("structured", "free")
NOTHING_KNOWN = "no caption and no labels"
CUT = "reply cut at its token limit"
UNFINISHED = {"length": CUT, "content_filter": "reply withheld by the endpoint's filter"}
Item = TypeVar("Item", Caption, Record)
Parsed = TypeVar("Parsed")
Written = TypeVar("Written")


@dataclasses.dataclass(frozen=True)
class Chains:
    """The chains of one question; None for one that was not requested."""

    structured: dict[str, str] | None = None
    free: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Writer:
    """Requests questions and chains until they pass their checks.

    Attributes:
        chains: the kinds of chains to write, of CHAINS.
        attempts: requests, each with the next seed, before a question or chain is given up. At temperature zero there
            is one request, as all replies would be the same.
        concurrency: requests at once.
    """

    endpoint: Endpoint
    prompts: Prompts = dataclasses.field(default_factory=Prompts)
    chains: tuple[str, ...] = CHAINS
    seed: int = 0
    attempts: int = 3
    concurrency: int = 8

    def questions(self, captions: Sequence[Caption], ledger: Ledger) -> list[Record]:
        """Returns a record for each caption whose question and chains pass; each position is right equally often.

        The ledger has every caption as kept or dropped.

        Raises:
            InputError: the endpoint refuses or answers no request; a prompt or the cache cannot be used.
        """
        written = self._write_all(captions, self._question, ledger)
        dealt = balanced([(caption.id, question) for caption, (question, _) in written], self.seed)
        return [
            Record(
                id=caption.id,
                audio=caption.audio,
                question=question.question,
                choices=choices,
                answer_index=index,
                task=caption.task,
                source=caption.source,
                licence=caption.licence,
                chain_structured=chains.structured,
                chain_free=chains.free,
            )
            for (caption, (question, chains)), (choices, index) in zip(written, dealt, strict=True)
        ]

    def chained(
        self, records: Sequence[Record], captions: Mapping[str, Caption], ledger: Ledger
    ) -> list[Record]:
        """Returns the records with the chains that they lack; question and choices stay.

        Args:
            captions: captions of the records' audio by record id (`captions_of`). Without one, a chain rests on the
                question and its answer alone.

        Raises:
            InputError: as in `questions`.
        """

        def write(record: Record) -> Record:
            chains = self._chains(
                record.id,
                record.question,
                record.choices,
                record.answer_index,
                captions.get(record.id),
                record.task,
                Chains(structured=record.chain_structured, free=record.chain_free),
            )
            return dataclasses.replace(
                record, chain_structured=chains.structured, chain_free=chains.free
            )

        return [record for _, record in self._write_all(records, write, ledger)]

    def _write_all(
        self, items: Sequence[Item], write: Callable[[Item], Written], ledger: Ledger
    ) -> list[tuple[Item, Written]]:
        """Calls `write` on the items, several at once; returns those that succeed, in order, with what was written.

        The ledger has every item as kept or dropped.
        """
        done = []
        with tqdm(total=len(items), desc="synthesize", file=sys.stderr, disable=None) as bar:
            pool = ThreadPoolExecutor(self.concurrency)
            try:
                for item, future in [(item, pool.submit(write, item)) for item in items]:
                    _account(item, future, done, ledger)
                    bar.set_postfix(tokens=self.endpoint.budget.tokens, refresh=False)
                    bar.update()
            finally:
                # After an error, replies to requests already sent still reach the cache.
                pool.shutdown(cancel_futures=True)
        self.endpoint.check()
        return done

    def _question(self, caption: Caption) -> tuple[Question, Chains]:
        if not (caption.caption or "").strip() and not caption.labels:
            raise Drop(NOTHING_KNOWN)
        prompt = self.prompts.render(
            "question", caption=caption.caption, labels=caption.labels, task=caption.task
        )
        question = self._until(caption.id, prompt, "question", parse_question)
        # Drawn by id and not the final order, which depends on the other questions that pass: the requests for chains
        # must not depend on them.
        choices = shuffled(question.choices, self.seed, caption.id)
        index = choices.index(question.answer)
        chains = self._chains(
            caption.id, question.question, choices, index, caption, caption.task, Chains()
        )
        return question, chains

    def _chains(
        self,
        name: str,
        question: str,
        choices: Sequence[str],
        index: int,
        caption: Caption | None,
        task: str,
        have: Chains,
    ) -> Chains:
        values = {
            "question": question,
            "choices": tuple(choices),
            "answer": choices[index],
            "caption": caption.caption if caption else None,
            "labels": caption.labels if caption else (),
            "task": task,
        }
        structured = have.structured
        free = have.free
        if structured is None and "structured" in self.chains:
            prompt = self.prompts.render("structured", **values)
            structured = self._until(
                name,
                prompt,
                "structured chain",
                lambda text: parse_structured(text, choices, index),
            )
        if free is None and "free" in self.chains:
            prompt = self.prompts.render("free", **values)
            free = self._until(
                name, prompt, "free chain", lambda text: parse_free(text, choices, index)
            )
        return Chains(structured=structured, free=free)

    def _until(self, name: str, prompt: str, what: str, parse: Callable[[str], Parsed]) -> Parsed:
        """Returns the first reply that passes. Replies that do not pass are cached too and cost nothing in a rerun.

        Raises:
            NoReply: the endpoint gives no reply.
            Drop: none of the replies passes; it has the last one's reason.
        """
        attempts = self.attempts if self.endpoint.settings.temperature else 1
        refused = Drop(what)
        # The seed depends on the id, so that clips with equal captions get different questions.
        first = draw(self.seed, name) % 2**30
        for attempt in range(attempts):
            reply = None
            try:
                reply = self.endpoint.ask(prompt, first + attempt)
                if reply.finish in UNFINISHED:
                    raise Drop(UNFINISHED[reply.finish])
                return parse(reply.text)
            except NoReply:
                raise
            except Drop as drop:
                refused = Drop(f"{what}: {drop.reason}", _detail(drop, reply))
        raise refused


def _detail(drop: Drop, reply: Reply | None) -> str:
    """Returns the broken rule with the model's own words."""
    wrong = "" if str(drop) == drop.reason else str(drop)
    return wrong if reply is None else f"{wrong or drop.reason}; the model wrote: {reply.text}"


def _account(
    item: Item, future: "Future[Written]", done: list[tuple[Item, Written]], ledger: Ledger
) -> None:
    try:
        done.append((item, future.result()))
        ledger.keep()
    except Drop as drop:
        ledger.drop(item.id, drop.reason, "" if str(drop) == drop.reason else str(drop))


def captions_of(records: Iterable[Record], captions: Sequence[Caption]) -> dict[str, Caption]:
    """Returns the captions of the records' audio by record id; records without a caption are left out.

    A source gives several questions about a clip, each with its own id, but one caption, so a caption is found by its
    clips. The id decides between several captions of the same clips, and where clips have been packed since.
    """
    by_id = {caption.id: caption for caption in captions}
    by_audio: dict[tuple[Clip, ...], Caption] = {}
    for caption in captions:
        by_audio.setdefault(_real(caption.audio), caption)
    known = {}
    for record in records:
        audio = _real(record.audio)
        caption = by_id.get(record.id)
        if caption is None or _real(caption.audio) != audio:
            caption = by_audio.get(audio, caption)
        if caption is not None:
            known[record.id] = caption
    return known


def _real(audio: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """Returns the clips with the real paths of their files, to compare clips of different files of records."""
    return tuple(dataclasses.replace(clip, path=os.path.realpath(clip.path)) for clip in audio)


def by_place(records: Iterable[Record]) -> list[int]:
    """Returns the number of right answers at each position."""
    places = [record.answer_index for record in records]
    return [places.count(place) for place in range(max(places, default=-1) + 1)]
