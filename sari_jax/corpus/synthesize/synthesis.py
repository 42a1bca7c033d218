"""Captions -> questions -> chains: what a model writes, asked for side by side, checked, and accounted for."""

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
Item, Parsed, Written = TypeVar("Item", Caption, Record), TypeVar("Parsed"), TypeVar("Written")


@dataclasses.dataclass(frozen=True)
class Chains:
    """The chains of one question; None where one was not asked for."""

    structured: dict[str, str] | None = None
    free: str | None = None


@dataclasses.dataclass(frozen=True)
class Writer:
    """Asks for questions and chains until they pass their checks.

    Attributes:
        chains: which of them.
        attempts: replies asked for, each with the next seed, before one is given up. One where the temperature is
            zero, as they would all be the same.
        concurrency: requests under way at once.
    """

    endpoint: Endpoint
    prompts: Prompts = dataclasses.field(default_factory=Prompts)
    chains: tuple[str, ...] = CHAINS
    seed: int = 0
    attempts: int = 3
    concurrency: int = 8

    def questions(self, captions: Sequence[Caption], ledger: Ledger) -> list[Record]:
        """A record for each caption whose question and chains pass; each place is right equally often.

        Every caption is kept or dropped in the ledger.

        Raises:
            InputError: the endpoint answers nothing or refuses; a prompt or the cache cannot be used.
        """
        written = self._side_by_side(captions, self._question, ledger)
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
        """The records with the chains that they lack; question and choices stay.

        Args:
            captions: by a record's id, what is known of its sound (`captions_of`); without one the chain rests on the
                question and its answer alone.

        Raises:
            InputError: as `questions`.
        """

        def write(record: Record) -> Record:
            chains = self._chains(
                record.id,
                record.question,
                record.choices,
                record.answer_index,
                captions.get(record.id),
                record.task,
                Chains(record.chain_structured, record.chain_free),
            )
            return dataclasses.replace(
                record, chain_structured=chains.structured, chain_free=chains.free
            )

        return [record for _, record in self._side_by_side(records, write, ledger)]

    def _side_by_side(
        self, items: Sequence[Item], write: Callable[[Item], Written], ledger: Ledger
    ) -> list[tuple[Item, Written]]:
        """What is written about each, in their order; what cannot be goes to the ledger."""
        done = []
        with tqdm(total=len(items), desc="synthesize", file=sys.stderr, disable=None) as bar:
            pool = ThreadPoolExecutor(self.concurrency)
            try:
                for item, future in [(item, pool.submit(write, item)) for item in items]:
                    _account(item, future, done, ledger)
                    bar.set_postfix(tokens=self.endpoint.budget.tokens, refresh=False)
                    bar.update()
            finally:
                # Where it ends early, what is under way still reaches the cache.
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
        # The chains' requests must not hang on which other questions pass, as the final order of the choices does.
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
        structured, free = have.structured, have.free
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
        return Chains(structured, free)

    def _until(self, name: str, prompt: str, what: str, parse: Callable[[str], Parsed]) -> Parsed:
        """The first reply that passes; a reply that does not is in the cache too, and costs nothing in a rerun.

        Raises:
            NoReply: none is to be had.
            Drop: none of the replies passes; the last one's reason.
        """
        attempts = self.attempts if self.endpoint.settings.temperature else 1
        refused = Drop(what)
        # By id: of clips about which the same is known, each gets a question of its own.
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
    """What was wrong, and the model's own words."""
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
    """By a record's id, the caption of its sound; records of which there is none are left out.

    A source gives several questions about a clip, each with an id of its own, and one caption: clips tell which belong
    together. The id tells it where clips do not: of several captions of one sound, and after clips were packed.
    """
    by_id = {caption.id: caption for caption in captions}
    by_sound: dict[tuple[Clip, ...], Caption] = {}
    for caption in captions:
        by_sound.setdefault(_sound(caption.audio), caption)
    known = {}
    for record in records:
        sound, named = _sound(record.audio), by_id.get(record.id)
        if named is None or _sound(named.audio) != sound:
            named = by_sound.get(sound, named)
        if named is not None:
            known[record.id] = named
    return known


def _sound(audio: tuple[Clip, ...]) -> tuple[Clip, ...]:
    """The clips by the files they are, whichever folder their names are taken from."""
    return tuple(dataclasses.replace(clip, path=os.path.realpath(clip.path)) for clip in audio)


def by_place(records: Iterable[Record]) -> list[int]:
    """How often each place is the right one."""
    places = [record.answer_index for record in records]
    return [places.count(place) for place in range(max(places, default=-1) + 1)]
