"""Settings as fields of frozen dataclasses: each field carries its default, its limit and its meaning.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Optimizer:
        learning_rate: float = setting(1e-6, finite=True, at_least=0, doc="The peak learning rate.")

`build` makes such an object from plain values, `check` holds it to its limits, and `tables` lists it in Markdown.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from sari_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """The values that a setting may have. NaN is outside every range.

    Attributes:
        at_least, above, at_most, below: the ends of the range; None leaves an end open.
        finite: whether infinity is outside the range.
        unset: a value outside the range that is allowed too; the setting's value then comes from elsewhere.
        choices: the known words of a setting that is a word.
        hint: the end of the limit's text, or all of it if the limit depends on more than this setting.
    """

    at_least: float | int | None = None
    above: float | int | None = None
    at_most: float | int | None = None
    below: float | int | None = None
    finite: bool = False
    unset: float | int | None = None
    choices: tuple[str, ...] | None = None
    hint: str = ""

    def __str__(self) -> str:
        """The limit in words: "at least 0 and below 1"."""
        if self.choices is not None:
            return ", ".join(f"`{choice}`" if choice else '`""`' for choice in self.choices)
        ends = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        words = [f"{word} {end}" for word, end in ends.items() if end is not None]
        return " and ".join([*(["finite"] if self.finite else []), *words]) + self.hint

    def check(self, key: str, value: Any) -> None:
        """Raises InputError, which names the key, if the value is outside the limit."""
        if self.choices is not None:
            if value not in self.choices:
                hint = nearest(value, self.choices)
                raise InputError(f"config: {key} = {value!r} is unknown; {hint}")
        elif str(self) and not self._holds(value):
            raise InputError(f"config: {key} = {value} must be {self}")

    def _holds(self, value: Any) -> bool:
        if self.unset is not None and value == self.unset:
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and (not self.finite or math.isfinite(value))
        )


def setting(default: Any, *, doc: str, choices: Iterable[str] | None = None, **limits: Any) -> Any:
    """Returns a dataclass field with its default, its meaning and its limit.

    Args:
        doc: the meaning of the setting in one line; docs/settings.md shows it.
        choices, limits: the attributes of its `Limit`.
    """
    limit = Limit(choices=None if choices is None else tuple(choices), **limits)
    return dataclasses.field(default=default, metadata={"doc": doc, "limit": limit})


def check(settings: Any, prefix: str = "") -> None:
    """Checks every setting of a dataclass, and of the dataclasses in it, against its limit.

    Raises:
        InputError: a value outside its limit; its full key, the value and the limit are named.
    """
    for field in dataclasses.fields(settings):
        key = f"{prefix}{field.name}"
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        elif "limit" in field.metadata:
            field.metadata["limit"].check(key, value)


def plain(value: Any) -> Any:
    """Returns a dataclass as nested dictionaries, and any other value as it is."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    return value


def build(kind: type, values: dict[str, Any], prefix: str = "") -> Any:
    """Returns a dataclass of this kind with these values; settings that are not given keep their defaults.

    Raises:
        InputError: an unknown key (the nearest known one is named), a wrong type, a value outside its limit.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in fields:
            raise InputError(f"config: unknown key {prefix}{key}; {nearest(key, fields)}")
    built = {}
    for key, value in values.items():
        hint = hints[key]
        built[key] = (
            build(hint, value, f"{prefix}{key}.")
            if dataclasses.is_dataclass(hint)
            else _typed(hint, value, f"{prefix}{key}")
        )
    return kind(**built)


def nearest(key: str, known: Iterable[str]) -> str:
    """Returns a hint for a misspelt name: the nearest known one, or all of them if none is near."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(filter(None, known)))}"


def tables(kind: type) -> str:
    """Returns a Markdown section for a dataclass and each dataclass in it: key, default, limit and meaning."""
    return "\n".join(_sections(kind, ""))


def _typed(hint: Any, value: Any, key: str) -> Any:
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(typing.get_args(hint)[0], item, key) for item in value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", str(hint))
    raise InputError(f"config: {key} = {value!r} must be {wanted}, not {type(value).__name__}")


def _sections(kind: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    nested = [field for field in fields if dataclasses.is_dataclass(hints[field.name])]
    yield f"## {prefix.removesuffix('.') or 'The run'}\n"
    yield f"{(kind.__doc__ or '').splitlines()[0]}\n"
    yield "| setting | default | limit | meaning |"
    yield "|---|---|---|---|"
    for field in fields:
        if field not in nested:
            yield _row(f"{prefix}{field.name}", hints[field.name], field)
    yield ""
    for field in nested:
        yield from _sections(hints[field.name], f"{prefix}{field.name}.")


def _row(key: str, hint: Any, field: dataclasses.Field) -> str:
    limit = str(field.metadata["limit"]) or _type_in_words(hint)
    default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
    cells = [f"`{key}`", f"`{default}`", limit, field.metadata["doc"]]
    return f"| {' | '.join(cells)} |"


def _type_in_words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}
    if typing.get_origin(hint) is tuple:
        return {int: "whole numbers", float: "numbers"}.get(typing.get_args(hint)[0], "texts")
    return names[hint]
