"""Both sides of the benchmark do the same work. How fast they do it is not tested."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from sari_jax.cli import main
from sari_jax.errors import InputError
from sari_jax.scale import jax_side
from sari_jax.scale.bench import bench
from sari_jax.scale.work import Work, make, read
from sari_jax.train.config import freeze
from sari_jax.train.flags import read_config_file

CONFIGS = Path(__file__).parent.parent.parent / "configs"

SMALL = Work(
    encoder_layers=1,
    encoder_width=48,
    encoder_heads=4,
    encoder_ffn=64,
    layers=2,
    width=64,
    heads=4,
    ffn=96,
    vocabulary=300,
    audio_seconds=3.0,
    new_tokens=6,
    num_completions=3,
    sft_rows=3,
    sft_parts=3,
    rounds=1,
)


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    out = tmp_path_factory.mktemp("work")
    make(SMALL, out)
    return out


def test_work_is_written_and_read_back(folder):
    work, batch = read(folder)
    assert work == SMALL
    assert batch["completions"].shape == (3, 6) and batch["tokens"].shape == (75 + 64,)
    assert batch["sft_samples"].max() == 48_000 and len(set(batch["sft_samples"].tolist())) == 3


@pytest.fixture(scope="module")
def torch_side(theirs):
    from sari_jax.scale import torch_side

    return torch_side


@pytest.fixture(scope="module")
def ours(folder):
    return jax_side.phases(folder, "trained")


@pytest.mark.tools
@pytest.mark.parametrize("form", ["repeated", "once"])
def test_both_sides_compute_the_same_log_probabilities(folder, ours, torch_side, form):
    found = ours["reference"]()
    theirs = torch_side.phases(folder, "trained", form)["reference"]()
    assert found.shape == (1, 3, 6) and float(found.std()) > 0.1
    np.testing.assert_allclose(found[0], theirs.numpy(), rtol=0, atol=1e-5)


@pytest.mark.tools
def test_both_sides_make_the_same_updates(folder, ours, torch_side):
    """Their losses and gradient norms are equal, the tower's gradient included; SFT's step comes after an update."""
    found = [ours[phase]() for phase in ("update", "sft_step")]
    for form in ("once", "parts"):  # with SFT's examples padded; with completions repeated
        theirs = torch_side.phases(folder, "trained", form)
        for phase, mine in zip(("update", "sft_step"), found, strict=True):
            wanted = theirs[phase]()
            for name in ("loss", "gradient_norm"):
                assert float(mine[name]) == pytest.approx(float(wanted[name]), rel=1e-4), name


@pytest.mark.tools
@pytest.mark.usefixtures("theirs")
def test_a_whole_run(tmp_path, capsys):
    config = tmp_path / "bench.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        f"get_config = lambda: ConfigDict({dataclasses.asdict(SMALL)})\n"
    )
    assert main(["bench", "--config", str(config), "--rows", "frozen_tower", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["phases"]) == {"grpo_step"} and set(result["rows"]) == {"frozen_tower"}
    for phase in result["phases"].values():
        assert phase["ratio_min"] <= phase["ratio"] <= phase["ratio_max"]
        assert phase["jax_s"] > 0 and phase["torch_s"] > 0
    assert set(result["peak_rss_gib"]) == {"jax", "torch"} and result["work"]["width"] == 64


def test_the_config_is_the_default_work():
    path = CONFIGS / "bench.py"
    assert freeze(read_config_file(str(path), []), Work) == Work()
    assert "sari bench --config configs/bench.py --against torch" in path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rounds=0), "rounds = 0 must be at least 1"),
        (dict(audio_seconds=31.0), "audio_seconds = 31.0 must be from 0.2 to 30"),
        (dict(heads=7), "width = 64 must be a multiple of 14"),
        (dict(sft_parts=2), "sft_rows = 3 must be a multiple of 2"),
    ],
)
def test_work_that_cannot_be_done(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **change)


def test_more_threads_than_processors():
    with pytest.raises(InputError, match="threads = 4096 exceeds"):
        bench(dataclasses.replace(SMALL, threads=4096), ("repeated",), print)


def test_an_unknown_row():
    with pytest.raises(InputError, match="row 'frozn' is unknown; choose repeated"):
        bench(SMALL, ("frozn",), print)
