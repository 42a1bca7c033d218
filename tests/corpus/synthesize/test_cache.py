import dataclasses
import json

import pytest

from sari_jax.corpus.synthesize.cache import Cache, Reply
from sari_jax.errors import InputError

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hé"}], "seed": 0}
REPLY = Reply("a dog", "stop", 7, 2)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def test_what_is_put_is_got(cache):
    assert cache.get(REQUEST) is None
    cache.put(REQUEST, REPLY)
    assert cache.get(dict(reversed(REQUEST.items()))) == REPLY
    assert list(Cache(cache.folder).replies("m")) == [REPLY]
    assert not list(cache.folder.rglob("*.partial"))


def test_replies_are_one_models(cache):
    other = dataclasses.replace(REPLY, text="a cat")
    cache.put(REQUEST, REPLY)
    cache.put(REQUEST | {"model": "n"}, other)
    assert list(cache.replies("m")) == [REPLY] and list(cache.replies("n")) == [other]


def test_what_is_unusable_counts_each_time_and_answers_nothing(cache):
    cache.put_unusable(REQUEST, REPLY)
    cache.put_unusable(REQUEST, REPLY)
    assert cache.get(REQUEST) is None and list(cache.replies("m")) == [REPLY] * 2
    cache.put(REQUEST, REPLY)
    assert list(cache.replies("m")) == [REPLY] * 3


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"seed": 1}, {"messages": []}, {"temperature": 0.0}]
)
def test_everything_that_is_asked_counts(cache, change):
    cache.put(REQUEST, REPLY)
    assert cache.get(REQUEST | change) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"reply": 1}',
        json.dumps({"request": REQUEST, "reply": {"text": "a dog"}}),
        json.dumps({"reply": dataclasses.asdict(REPLY)}),
        json.dumps({"request": 1, "reply": dataclasses.asdict(REPLY)}),
        json.dumps(
            {"request": REQUEST, "reply": dataclasses.asdict(REPLY) | {"prompt_tokens": "7"}}
        ),
        json.dumps({"request": REQUEST, "reply": dataclasses.asdict(REPLY) | {"text": None}}),
        json.dumps({"request": REQUEST, "reply": dataclasses.asdict(REPLY) | {"more": 1}}),
    ],
)
def test_a_damaged_entry_is_none_and_is_written_again(cache, text):
    cache.put(REQUEST, REPLY)
    (entry,) = cache.folder.rglob("*.json")
    entry.write_text(text)
    assert cache.get(REQUEST) is None and not list(cache.replies("m"))
    cache.put(REQUEST, REPLY)
    assert cache.get(REQUEST) == REPLY


def test_a_place_that_cannot_be_written(tmp_path, cache):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="name another --cache"):
        Cache(tmp_path / "file")
    cache.folder.rmdir()
    cache.folder.write_text("")
    with pytest.raises(InputError, match="name another --cache"):
        cache.put(REQUEST, REPLY)
