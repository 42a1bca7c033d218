import dataclasses
import math

import pytest

from sari_jax.errors import InputError
from sari_jax.settings import Limit, build, check, nearest, plain, setting, tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Settings of a part. More of it."""

    rate: float = setting(0.5, finite=True, at_least=0, doc="The rate; ours.")
    words: tuple[str, ...] = setting((), doc="Some words.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """Settings of all."""

    name: str = setting("", choices=("", "red", "blue"), doc="A colour.")
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("limit", "text", "inside", "outside"),
    [
        (Limit(at_least=1), "at least 1", (1, 2, math.inf), (0, math.nan)),
        (Limit(at_least=0, below=1), "at least 0 and below 1", (0, 0.9), (1, -0.1, math.nan)),
        (Limit(above=0, at_most=1, hint=", which is off"), "above 0 and at most 1, which is off", (1,), (0, 1.1)),
        (Limit(finite=True, at_least=0), "finite and at least 0", (0,), (math.inf, math.nan)),
        (Limit(at_least=0, unset=-1, hint=", or -1"), "at least 0, or -1", (-1, 0), (-0.5, math.nan)),
        (Limit(hint="above 0 on Sundays"), "above 0 on Sundays", (-1, math.nan), ()),
        (Limit(), "", (-1, math.nan), ()),
    ],
)  # fmt: skip
def test_a_limit_says_what_it_holds(limit, text, inside, outside):
    assert str(limit) == text
    for value in inside:
        limit.check("x", value)
    for value in outside:
        with pytest.raises(InputError, match=f"^config: x = {value} must be {text}$"):
            limit.check("x", value)


def test_a_word_that_is_not_known():
    with pytest.raises(InputError, match="^config: name = 'bleu' is unknown; did you mean 'blue'?"):
        check(Outer(name="bleu"))


def test_parts_are_checked_by_their_full_keys():
    check(Outer())
    with pytest.raises(InputError, match="config: inner.rate = -1.0 must be finite and at least 0"):
        check(Outer(inner=Inner(rate=-1.0)))


def test_plain_values_and_back():
    built = build(Outer, {"name": "red", "inner": {"rate": 1, "words": ["a"]}})
    assert built == Outer(name="red", inner=Inner(rate=1.0, words=("a",)))
    assert plain(built) == {"name": "red", "inner": {"rate": 1.0, "words": ("a",)}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"rat": 1}}, "config: unknown key inner.rat; did you mean 'rate'?"),
        ({"inner": {"rate": "1"}}, "config: inner.rate = '1' must be float, not str"),
        ({"inner": {"rate": True}}, "config: inner.rate = True must be float, not bool"),
        ({"inner": {"words": [1]}}, "config: inner.words = 1 must be str, not int"),
    ],
)
def test_values_that_cannot_be_built(values, message):
    with pytest.raises(InputError) as found:
        build(Outer, values)
    assert str(found.value) == message


def test_tables_show_default_limit_and_meaning():
    assert (
        tables(Outer)
        == """## The run

Settings of all.

| setting | default | limit | meaning |
|---|---|---|---|
| `name` | `""` | `""`, `red`, `blue` | A colour. |

## inner

Settings of a part. More of it.

| setting | default | limit | meaning |
|---|---|---|---|
| `inner.rate` | `0.5` | finite and at least 0 | The rate; ours. |
| `inner.words` | `()` | texts | Some words. |
"""
    )


def test_nearest_lists_all_where_nothing_is_near():
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
