"""Means, errors and curves of the ablation's arms, read from its folders."""

import json
import math

import pytest

from experiments.sari_ablation import GRPO, SIZES, draw_curves, folder, styles, summarise, table
from sari_jax.data.records import write_records


@pytest.fixture
def runs(tmp_path, make_record):
    """Two seeds of smol's arms; those of the second are a tenth better."""
    size = SIZES["smol"]
    for seed in (0, 1):
        out = tmp_path / f"seed-{seed}"
        names = ["base", *(f"sft-{style}" for style in styles(size)), *map(folder, size.arms)]
        for place, name in enumerate(names):
            accuracy = 0.1 * place + 0.1 * seed
            (out / f"eval-{name}").mkdir(parents=True)
            (out / f"eval-{name}/scores.json").write_text(
                json.dumps({"accuracy": {"all": accuracy}})
            )
            (out / f"run-{name}").mkdir()
            rows = [{"step": step, "accuracy": accuracy + step} for step in (0, 30, 60)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (out / f"run-{name}/held_out.jsonl").write_text(text)
        (out / "dog.wav").write_bytes(b"never read")
        write_records(out / "test.jsonl", [make_record()])
    return tmp_path


def test_what_smol_runs_is_a_part_of_what_nano_does():
    assert SIZES["nano"].arms == tuple(GRPO) and set(SIZES["smol"].arms) < set(GRPO)
    assert styles(SIZES["nano"]) == ["structured", "free", "direct"]
    assert styles(SIZES["smol"]) == ["structured", "free"]


def test_each_arm_over_its_seeds(runs):
    summary = summarise("smol", runs, [0, 1])
    assert list(summary["arms"]) == ["base", "SFT, structured", "SFT, free", *SIZES["smol"].arms]
    arm = summary["arms"]["structured, easy to hard"]  # the fifth: 0.4 and 0.5
    assert arm["accuracy"] == pytest.approx([0.4, 0.5]) and arm["mean"] == pytest.approx(0.45)
    assert arm["error"] == pytest.approx(math.sqrt(0.005) / math.sqrt(2))
    assert arm["steps"] == [0, 30, 60] and arm["held_out"][1] == pytest.approx([0.5, 30.5, 60.5])
    assert summary["chance"] == pytest.approx(1 / 3)
    above = {(row["arm"], row["against"]): row for row in summary["differences"]}
    assert ("SFT, structured", "SFT, answers alone") not in above  # which smol has not
    row = above["structured, easy to hard", "structured, random"]  # 0.1 below in both seeds
    assert row["accuracy"] == pytest.approx({"mean": -0.1, "error": 0.0})
    assert row["on_the_way"] == pytest.approx({"mean": -0.1, "error": 0.0})
    assert "on_the_way" not in above["SFT, structured", "SFT, free"]
    text = table(summary)
    assert (
        "| structured, easy to hard | structured, random | -0.100 (0.000) | -0.100 (0.000) |"
        in text
    )
    assert "| SFT, structured | SFT, free | -0.100 (0.000) |  |" in text
    assert "| structured, easy to hard | 0.400, 0.500 | 0.450 | 0.050 | 45.450 |" in text
    assert "| base | 0.000, 0.100 | 0.050 | 0.050 |  |" in text
    draw_curves(summary, runs / "curves.png")
    assert (runs / "curves.png").stat().st_size > 10_000


def test_one_seed_has_no_error(runs):
    assert "| base | 0.000 | 0.000 |  |  |" in table(summarise("smol", runs, [0]))
