"""Parsing of trainers' files: questions that contain their choices, and replies that may begin with a thought.

The tags are our own and Audio-Reasoner's: <THINK>, <PLANNING> ... <SUMMARY>, <RESPONSE>.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from sari_jax.corpus.sources.choices import named
from sari_jax.corpus.sources.rows import BAD_FIELD
from sari_jax.data.answers import choice_index
from sari_jax.data.ledger import Drop
from sari_jax.data.records import SECTIONS
from sari_jax.data.styles import Tags, make_style

NO_CHOICES = "no choices in the question"
# Characters of a question or reply.
LONGEST = 20_000
# Letters that may mark choices.
MOST_MARKS = 200

_TAGS = (
    Tags(),
    Tags(think="THINK", answer="RESPONSE", **{name: name.upper() for name in SECTIONS}),
)
_TAG_NAMES = sorted({name.lower() for tags in _TAGS for name in dataclasses.astuple(tags)})
_STYLES = [(make_style("structured", tags), make_style("free", tags)) for tags in _TAGS]
# Possessive, so that nothing is tried twice.
_TEXT = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_QUOTED = re.compile(rf"\[\s*+(?:{_TEXT})(?:\s*+,\s*+(?:{_TEXT}))*+\s*+\]", re.DOTALL)
_LETTER = re.compile(r"(?:^|(?<=\s))(?:\(([A-Za-z])\)|([A-Za-z])[.):])\s+")
_ASKED = re.compile(r"(?:please\s+)?\b(?:choose|select|pick)\b", re.IGNORECASE)
_OF_WHICH = re.compile(r"\b(?:options?|choices|answers?|one)\b", re.IGNORECASE)
_VERDICT = re.compile(
    r"(?is).*\b(?:answer|option|choice)\s*(?:is\s*:?|:)\s*(?:option\s+)?\*{0,2}(.+?)\*{0,2}[.\s]*$"
)


def question_and_choices(prompt: str) -> tuple[str, list[str]]:
    """Splits a prompt into the question and the choices after it.

    Choices are lettered, (a) or A., or a list like ['a', 'b'], or lines that begin with -.

    Raises:
        Drop: the prompt contains no choices.
    """
    if len(prompt) > LONGEST:
        raise Drop(NO_CHOICES, f"{len(prompt)} characters exceed {LONGEST}")
    for find in (_listed, _quoted, _lettered):
        found = find(prompt)
        if found and len(found[1]) > 1 and all(found[1]):
            question = _without_instruction(found[0])
            if question:
                return question, found[1]
    raise Drop(NO_CHOICES, f"no choices in {prompt.strip()[:80]!r}")


def _without_instruction(question: str) -> str:
    """Removes a last sentence that says to choose one of the options."""
    whole = question.strip()
    body = whole.rstrip(":. \n")
    start = max(body.rfind(mark) for mark in ".?!\n") + 1
    asked = _ASKED.search(body, start)
    if asked and _OF_WHICH.search(body, asked.end()):
        return body[: asked.start()].strip()
    return whole


def _listed(prompt: str) -> tuple[str, list[str]] | None:
    lines = prompt.splitlines()
    marked = [bool(re.match(r"\s*[-*] \S", line)) for line in lines]
    if True not in marked:
        return None
    start = marked.index(True)
    stop = marked.index(False, start) if False in marked[start:] else len(lines)
    return "\n".join(lines[:start]), [line.strip()[2:].strip() for line in lines[start:stop]]


def _quoted(prompt: str) -> tuple[str, list[str]] | None:
    match = _QUOTED.search(prompt)
    if not match:
        return None
    quoted = [found[0][1:-1] for found in re.finditer(_TEXT, match[0], re.DOTALL)]
    choices = [re.sub(r"\\(.)", r"\1", choice).strip() for choice in quoted]
    return prompt[: match.start()], choices


def _lettered(prompt: str) -> tuple[str, list[str]] | None:
    """Takes the longest run of letters from "a" on with the same marks, so that "vitamin A." is not a choice."""
    marks = [
        (m, m[1] or m[2], re.sub("[A-Za-z]", "", m[0].strip())) for m in _LETTER.finditer(prompt)
    ]
    if len(marks) > MOST_MARKS:
        return None
    runs = []
    for start, (_, first, style) in enumerate(marks):
        if first in "Aa":
            run = []
            for match, letter, its_style in marks[start:]:
                if its_style == style and ord(letter) == ord(first) + len(run):
                    run.append(match)
            runs.append(run)
    if not runs:
        return None
    run = max(runs, key=len)
    ends = [match.start() for match in run[1:]] + [len(prompt)]
    pieces = [prompt[match.end() : end] for match, end in zip(run, ends, strict=True)]
    # An instruction may follow on a new line.
    pieces[-1] = pieces[-1].strip().split("\n")[0]
    return prompt[: run[0].start()], [piece.strip().rstrip(".;,").strip() for piece in pieces]


def answered(reply: str, choices: Sequence[str]) -> dict[str, Any]:
    """Makes a record's `choices`, `answer_index` and chain, if there is one, from a reply.

    Raises:
        Drop: the reply names none of the choices.
    """
    if len(reply) > LONGEST:
        raise Drop(BAD_FIELD, f"a reply of {len(reply)} characters exceeds {LONGEST}")
    tagged = [style.answer(reply) for pair in _STYLES for style in pair]
    answer = next(filter(None, tagged), None) or reply[_thought_ends(reply) :]
    verdict = _VERDICT.fullmatch(answer.strip()[-1000:])
    if verdict and choice_index(answer, choices) is None:
        answer = verdict[1]
    return named(answer.strip(), choices, lettered=True) | chain(reply)


def _thought_ends(reply: str) -> int:
    last = reply.lower().rfind("</think>")
    return last + len("</think>") if last >= 0 else 0


def chain(reply: str) -> dict[str, Any]:
    """Returns a reply's thought as a record's `chain_structured` or `chain_free`; {} if there is none in tags."""
    for structured, free in _STYLES:
        sections = {name: untagged(body) for name, body in structured.sections(reply).items()}
        if sections.keys() >= set(SECTIONS) and all(sections.values()):
            return {"chain_structured": sections}
        if thought := untagged(free.sections(reply).get("think", "")):
            return {"chain_free": thought}
    return {}


def untagged(thought: str) -> str:
    """Removes tags: a chain must contain none, as styles add their own."""
    return re.sub(rf"(?i)</?(?:{'|'.join(_TAG_NAMES)})>", "", thought).strip()
