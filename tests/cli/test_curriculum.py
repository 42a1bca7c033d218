"""From raw questions to ordered batches by the commands of docs/data.md, and what becomes of every question."""

import dataclasses
import json

import pytest

from sari_jax.cli import main
from sari_jax.data.records import read_records, write_records


@pytest.fixture
def sari(capsys):
    def run(*words) -> dict:
        code = main([str(word) for word in [*words, "--json"]])
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    return run


def accounted(told: dict) -> bool:
    return told["read"] == told["kept"] + sum(told["dropped"].values())


def test_clean_split_order_pack(sari, starter_dir, tmp_path):
    train, bad = tmp_path / "train.jsonl", tmp_path / "bad.jsonl"
    lines = (starter_dir / "train.jsonl").read_text().splitlines(keepends=True)[:80]
    train.write_text("".join(lines))
    bad.write_text('{"id": "no record"}\n\xff\n' + lines[0])
    (tmp_path / "audio").symlink_to(starter_dir / "audio")

    told = sari("data", "clean", "--data", train, bad, "--out", tmp_path / "clean", "--workers", 1)
    assert accounted(told) and told["read"] == 83 and told["dropped"]["bad line"] == 2
    assert sum(told["dropped"].values()) >= 3  # the repeated question too
    clean = read_records(tmp_path / "clean/records.jsonl")
    assert len(clean) == told["kept"] > 60

    scored = tmp_path / "scored.jsonl"
    rated = [dataclasses.replace(r, pass_rate=(i % 16 + 1) / 16) for i, r in enumerate(clean)]
    write_records(scored, rated)
    told = sari(
        "data", "split", "--data", scored, "--sft", 20, "--rl", 40, "--out", tmp_path / "split"
    )
    assert accounted(told) and (told["sft"], told["rl"]) == (20, 40)
    parts = [read_records(tmp_path / f"split/{name}.jsonl") for name in ("sft", "rl")]
    assert [len(part) for part in parts] == [20, 40]
    assert not {r.id for r in parts[0]} & {r.id for r in parts[1]}

    ordered = tmp_path / "ordered.jsonl"
    rl = tmp_path / "split/rl.jsonl"
    told = sari("data", "order", "--data", rl, "--order", "hard_to_easy", "--out", ordered)
    assert accounted(told) and told["first_pass_rate"] < told["last_pass_rate"]
    rates = [record.pass_rate for record in read_records(ordered)]
    assert rates == sorted(rates)

    packed = tmp_path / "packed"
    told = sari("data", "pack", "--data", ordered, "--shard-clips", 15, "--out", packed)
    assert accounted(told) and told["clips"] == 40
    assert len(list(packed.glob("*.arrayrecord"))) == 3
    found = read_records(packed / "records.jsonl")
    assert [record.id for record in found] == [record.id for record in read_records(ordered)]


@pytest.mark.parametrize(
    "words, match",
    [
        (["split", "--sft", "10000"], "questions are asked for SFT"),
        (["order", "--order", "easy"], "order 'easy' is unknown"),
        (["order", "--order", "staged"], "have no pass_rate"),
        (["pack"], "not empty"),
    ],
)
def test_what_is_refused_leaves_nothing(capsys, starter_dir, tmp_path, words, match):
    out = tmp_path / "out"
    if words == ["pack"]:
        out.mkdir()
        (out / "something").write_text("")
    words = ["data", *words, "--data", str(starter_dir / "train.jsonl"), "--out", str(out)]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sari: ") and match in line
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if out.exists() else [])
