"""Words that a reply may not use, and how a reply is taken out of code fences and thoughts."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from sari_jax.data.jsonl import json_object
from sari_jax.data.ledger import Drop
from sari_jax.data.styles import Tags
from sari_jax.data.words import normalise

NOT_JSON = "not a JSON object"
NAMES_KEY = "names the answer key"
CITES_TEXT = "speaks of reading, not of listening"
HOLDS_TAG = "holds a tag of the answer styles"
# The closing tag alone: some servers leave the opening tag in the prompt.
_THOUGHT_OUT = "</think>"
_FENCE = re.compile(r"```[\w-]*\n?(.*?)```", re.DOTALL)
_TAG = re.compile(rf"</?(?:{'|'.join(map(re.escape, dataclasses.astuple(Tags())))})>", re.I)

_PLACES = "first|second|third|fourth|fifth|sixth|seventh|eighth|last|final|1st|2nd|3rd|[4-8]th"
# A letter names a choice if it is a capital or the last word: "B minor" is music, "an option a listener has" English.
_KEYS = (
    re.compile(r"\([A-Ha-h]\)"),
    re.compile(r"^[ \t]*[A-H][.):]\s", re.M),
    re.compile(r"\b(?:[Oo]ption|[Cc]hoice)s?\s*[:#]?\s*[\"'*]*(?:[A-H]|[1-8](?![/.:%]?\d|%))\b"),
    re.compile(r"\b(?:option|choice|answer)\s*:?\s*[\"'*]*[a-h](?=[\"'*]*\s*(?:[.,;:!?)]|$))", re.I | re.M),
    re.compile(r"\b(?:answer|solution)[ -]keys?\b", re.I),
    re.compile(rf"\b(?:{_PLACES})(?: \w+)? (?:option|choice|answer)\b", re.I),
    re.compile(r"\b(?:given|provided|stated|listed|marked|supplied) (?:right |correct )?answer\b", re.I),
    re.compile(r"\b(?:right|correct) (?:answer|choice) (?:is|was) (?:given|provided|stated|marked)\b", re.I),
)  # fmt: skip
_BARE_LETTER = re.compile(
    r"\b(?:answer|option|choice)\s+(?:is|must be|would be|should be|has to be)\s*:?\s*[\"'*]*[A-H]"
    r"(?=[\"'*]*\s*(?:[.,;:!?)]|$))",
    re.MULTILINE,
)
_TEXT = r"(?:description|transcript|transcription|text|label|tag|passage)s?"
_READS = (
    re.compile(r"\b(?:captions?|captioned|metadata|annotations?)\b", re.I),
    re.compile(
        rf"\b(?:according to|based on|as (?:stated|described|mentioned|noted) (?:in|by)|given|provided|written)"
        rf"\s+(?:(?:in|by|the|this|a|an|audio|sound|clip'?s?|given|provided|written)\s+)*{_TEXT}\b",
        re.I,
    ),
    re.compile(
        rf"\b(?:the|this)\s+(?:\w+\s+)?{_TEXT}\s+(?:also\s+|explicitly\s+|clearly\s+)?"
        r"(?:say|state|mention|describe|indicate|note|read|tell|specifie|list|suggest)s?\b",
        re.I,
    ),
    re.compile(r"\bI (?:have |am )?(?:read|reading)\b", re.I),
)


def json_reply(text: str) -> dict[str, Any]:
    """Returns the JSON object in a reply, from within a code fence and after a reasoning model's thoughts, if any.

    Raises:
        Drop: there is no object, or its text contains an unpaired surrogate, which cannot be encoded.
    """
    bare = unwrapped(text)
    first, last = bare.find("{"), bare.rfind("}")
    try:
        return json_object(bare[first : last + 1])
    except ValueError as error:
        raise Drop(NOT_JSON, str(error)) from error


def unwrapped(text: str) -> str:
    """Returns a reply without a code fence and without the thoughts before it."""
    text = text.rpartition(_THOUGHT_OUT)[2]
    fenced = _FENCE.search(text)
    return (fenced[1] if fenced else text).strip()


def check_words(text: str, choices: Sequence[str]) -> None:
    """Checks the rules for the words of a question or a chain.

    Raises:
        Drop: the text breaks a rule; the detail is the words that do.
    """
    for reason, found in (
        (HOLDS_TAG, holds_tag(text)),
        (NAMES_KEY, names_key(text, choices)),
        (CITES_TEXT, cites_text(text)),
    ):
        if found:
            raise Drop(reason, found)


def names_key(text: str, choices: Sequence[str] = ()) -> str | None:
    """Returns the words that name a choice by letter, number or position; None where there are none.

    Args:
        choices: if one of them is a letter itself, as a chord is, a bare letter names no position.
    """
    lettered = any(re.fullmatch("[a-h]", normalise(choice)) for choice in choices)
    return _found(_KEYS if lettered else (*_KEYS, _BARE_LETTER), text)


def cites_text(text: str) -> str | None:
    """Returns the words that refer to a text instead of the audio; None where there are none."""
    return _found(_READS, text)


def holds_tag(text: str) -> str | None:
    """Returns a tag of the answer styles in the text; None where there is none."""
    return _found((_TAG,), text)


def _found(patterns: Sequence[re.Pattern], text: str) -> str | None:
    matches = (pattern.search(text) for pattern in patterns)
    return next((match[0].strip() for match in matches if match), None)
