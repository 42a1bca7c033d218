"""`sari data synthesize` and `sari data caption` as scripts see them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import endpoints
import numpy as np
import pytest
import soundfile

from sari_jax.cli import main
from sari_jax.errors import install

ROOT = Path(__file__).parents[2]
KEY = "sk-very-secret"


@pytest.fixture
def server():
    with endpoints.serving() as server:
        yield server


@pytest.fixture
def captions(tmp_path) -> Path:
    """Twelve clips, of which one has no sound file and one line is broken."""
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    lines = []
    for i in range(12):
        soundfile.write(sounds / f"{i}.wav", 0.1 * np.sin(np.arange(4000) / (3 + i)), 16_000)
        row = {"id": f"clip{i}", "audio": [{"path": f"{i}.wav"}], "task": "sound"}
        row |= {"source": "made up", "licence": "CC0-1.0", "caption": f"a bell with note {i}"}
        lines.append(json.dumps(row))
    (sounds / "11.wav").unlink()
    path = sounds / "captions.jsonl"
    path.write_text("\n".join([*lines, '{"id": 1}']) + "\n")
    return path


def words(server, captions, out, *more) -> list[str]:
    first = ["data", "synthesize", "--captions", captions, "--out", out]
    return [str(w) for w in (*first, "--endpoint", server.url, "--model", "m", *more)]


def refused(capsys, given: list[str]) -> str:
    assert main(given) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("sari: ")]
    assert captured.out == "" and "Traceback" not in captured.err
    return line


def test_a_corpus_with_its_report(capsys, server, captions, tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("ELSEWHERE", KEY)
    out = tmp_path / "out"
    given = words(server, captions, out, "--api-key-env", "ELSEWHERE", "--json")
    assert main(given) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["read"] == 13 and told["kept"] == 11
    assert told["dropped"] == {"sound file missing": 1, "bad line": 1}
    assert told["right_by_place"] == [3, 3, 3, 2]
    assert told["requests"] == {"sent": 33, "cached": 0, "failed": 0}
    assert told["spent"] == {"prompt_tokens": 3300, "completion_tokens": 660}
    assert server.keys == [f"Bearer {KEY}"] * 33
    assert json.loads((out / "report.json").read_text()).items() <= told.items()
    assert len((out / "records.jsonl").read_text().splitlines()) == 11
    assert len((out / "dropped.jsonl").read_text().splitlines()) == 2
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".wav"]
    assert len(kept) == 1 + 3 + 33
    assert not [path for path in kept if KEY in path.read_text()]

    again = tmp_path / "again"
    more = ("--cache", f"{out}.requests", "--json", "--price-in", "2", "--price-out", "10")
    assert main(words(server, captions, again, *more)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["requests"] == {"sent": 0, "cached": 33, "failed": 0} and len(server.bodies) == 33
    assert told["spent"]["cost"] == pytest.approx((3300 * 2 + 660 * 10) / 1e6)
    other = [*words(server, captions, tmp_path / "other", *more), "--chains", "none"]
    other[other.index("m")] = "n"
    assert main(other) == 0
    assert json.loads(capsys.readouterr().out)["spent"]["prompt_tokens"] == 1100
    assert (again / "records.jsonl").read_bytes() == (out / "records.jsonl").read_bytes()


def test_questions_first_and_chains_later(capsys, server, captions, tmp_path):
    pytest.importorskip("openai")
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(words(server, captions, first, "--chains", "none")) == 0
    assert len(server.bodies) == 11
    given = words(server, captions, second, "--records", first / "records.jsonl", "--json")
    capsys.readouterr()
    assert main(given) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["read"] == 11 and len(server.bodies) == 33
    assert "sound file" in captured.err, "bad captions are told of, though not counted"
    plain, chained = (
        [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        for out in (first, second)
    )
    for before, after in zip(plain, chained, strict=True):
        assert before == {k: v for k, v in after.items() if not k.startswith("chain")}
        assert len(after["chain_structured"]) == 4 and after["chain_free"]


def test_captions_are_found_by_their_sound(capsys, server, captions, tmp_path):
    pytest.importorskip("openai")
    first = tmp_path / "first"
    assert main(words(server, captions, first, "--chains", "none")) == 0
    rows = [json.loads(line) for line in (first / "records.jsonl").read_text().splitlines()]
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps(row | {"id": f"{row['id']}-key"}) + "\n" for row in rows))
    few = captions.with_name("few.jsonl")
    few.write_text("\n".join(captions.read_text().splitlines()[:4]))
    capsys.readouterr()
    more = ("--records", records, "--chains", "free", "--json")
    assert main(words(server, few, tmp_path / "second", *more)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["with_caption"]) == (11, 4)
    prompts = [body["messages"][0]["content"] for body in server.bodies[11:]]
    assert sum("the clip holds: a bell with note" in prompt for prompt in prompts) == 4

    soundfile.write(few.with_name("else.wav"), np.zeros(4000), 16_000)
    row = json.loads(few.read_text().splitlines()[0])
    few.write_text(json.dumps(row | {"id": "else", "audio": [{"path": "else.wav"}]}))
    line = refused(capsys, words(server, few, tmp_path / "third", *more))
    assert "no caption is of a clip" in line and len(server.bodies) == 22


def test_at_the_limit_it_says_how_to_go_on(capsys, server, captions, tmp_path):
    pytest.importorskip("openai")
    out = tmp_path / "out"
    limit = ("--max-tokens-spent", "1200", "--concurrency", "1", "--json")
    assert main(words(server, captions, out, *limit)) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["kept"] == 3 and told["dropped"]["not reached: spending limit"] == 8
    assert "8 without a reply: the spending limit was reached" in captured.err
    assert str(out) in captured.err and f"{out}.requests" in captured.err
    assert len(server.bodies) == 10


def test_bad_input_is_told_in_a_line_and_nothing_is_sent(capsys, server, captions, tmp_path):
    out = tmp_path / "out"
    start = ["data", "synthesize", "--out", str(out), "--endpoint", server.url, "--model", "m"]
    assert "--captions" in refused(capsys, start)
    assert "no such file" in refused(capsys, words(server, tmp_path / "none.jsonl", out))
    line = refused(capsys, words(server, captions, out, "--max-cost", "3"))
    assert "--max-cost 3 needs --price-in" in line
    assert "holds none of" in refused(capsys, words(server, captions, out, "--prompts", out))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    assert "not empty" in refused(capsys, words(server, captions, tmp_path / "full"))
    server.faults = [401]
    line = refused(capsys, words(server, captions, out, "--concurrency", "1"))
    assert "refuses the key" in line and not out.exists() and len(server.bodies) == 1


def test_without_the_client_it_says_how_to_get_it(capsys, server, captions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    line = refused(capsys, words(server, captions, tmp_path / "out"))
    assert line == f"sari: sari data synthesize needs openai; {install('corpus')}"


@pytest.mark.tools
def test_killed_and_started_again_nothing_answered_is_asked_twice(server, captions, tmp_path):
    pytest.importorskip("openai")
    out = tmp_path / "out"
    cache = out.with_name("out.requests")
    given = [sys.executable, "-m", "sari_jax.cli"]
    given += words(server, captions, out, "--concurrency", "2", "--json")
    server.pause = 0.15
    process = subprocess.Popen(given, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while len(list(cache.glob("??/*.json"))) < 7 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    time.sleep(0.3)  # what the small server still had under way
    assert not out.exists()
    kept = {path.name for path in cache.glob("??/*.json")}
    before = len(server.bodies)
    assert 7 <= len(kept) <= before <= len(kept) + 2

    done = subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["kept"] == 11
    assert told["requests"] == {"sent": 33 - len(kept), "cached": len(kept), "failed": 0}
    assert len(server.bodies) == before + 33 - len(kept)
    asked = [json.dumps(body, sort_keys=True) for body in server.bodies]
    assert len(set(asked)) == 33 and len(asked) - 33 == before - len(kept)


@pytest.mark.tools
def test_captions_by_a_model_of_ours(capsys, small_model, captions, tmp_path):
    rows = [json.loads(line) for line in captions.read_text().splitlines()[:4]]
    rows[0].pop("caption")
    rows[2].pop("caption")
    few = captions.with_name("few.jsonl")
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "captioned.jsonl"
    given = ["data", "caption", "--model", small_model, "--captions", few, "--out", out]
    given += ["--max-tokens", "4", "--rows", "2", "--json"]
    assert main([str(word) for word in given]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["read"] == 4 and told["kept"] + sum(told["dropped"].values()) == 4
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert lines[1]["caption"] == rows[1]["caption"]
    assert list(tmp_path.glob(".captioned*")) == []
    report = json.loads((tmp_path / "captioned.report.json").read_text())
    assert report["dropped"] == told["dropped"] and (tmp_path / "captioned.dropped.jsonl").is_file()
    assert "exists" in refused(capsys, [str(word) for word in given])
