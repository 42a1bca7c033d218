import dataclasses
import json

import pytest

from sari_jax.data.synthesize.cache import Cache, Reply
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
    assert list(Cache(cache.folder).replies()) == [REPLY]
    assert not list(cache.folder.rglob("*.partial"))


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
        json.dumps({"reply": {"text": "a dog"}}),
        json.dumps({"reply": dataclasses.asdict(REPLY) | {"prompt_tokens": "7"}}),
        json.dumps({"reply": dataclasses.asdict(REPLY) | {"text": None}}),
        json.dumps({"reply": dataclasses.asdict(REPLY) | {"more": 1}}),
    ],
)
def test_a_damaged_entry_is_none_and_is_written_again(cache, text):
    cache.put(REQUEST, REPLY)
    (entry,) = cache.folder.rglob("*.json")
    entry.write_text(text)
    assert cache.get(REQUEST) is None and not list(cache.replies())
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
