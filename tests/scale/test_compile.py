"""`sari compile` with the real TPU compiler."""

import json
from pathlib import Path

import pytest
import tiny

pytest.importorskip("libtpu", reason="the TPU compiler comes with jax[tpu]")

ROOT = Path(__file__).parent.parent.parent
COLLECTIVES = {"all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    sizes = tiny.Sizes(heads=4, kv_heads=4, head_dim=16, tower_heads=4, tower_width=32, mels=128)
    out = tmp_path_factory.mktemp("models") / "tiny"
    tiny.make(out, sizes)
    return out


def compiled(capsys, stage, *overrides, code=0, config="qwen2_audio_7b"):
    from sari_jax.cli import main

    words = [
        "compile",
        "--config",
        str(ROOT / f"configs/{stage}_{config}.py"),
        "--topology",
        "v5e:2x2",
    ]
    assert main([*words, "--json", *overrides]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_grpo_on_four_chips(capsys, model):
    told = compiled(
        capsys, "grpo", f"--config.model.path={model}", "--config.batch_size=4",
        "--config.grpo.completions=2", "--config.grpo.max_tokens=16", "--config.mesh.decode_tensor=2",
        "--config.model.attention=splash", "--audio-seconds", "2", "--text-tokens", "16",
    )  # fmt: skip
    assert (told["topology"], told["chips"], told["hbm_gib_per_chip"], told["fits"]) == (
        "v5e:2x2",
        4,
        16,
        True,
    )
    programs = told["programs"]
    assert list(programs) == ["encode", "policy", "prefill", "decode", "reference", "update"]
    for name, row in programs.items():
        assert 0 < row["peak_hbm_gib"] < 1 and row["compile_seconds"] > 0
        assert set(row["collective_bytes"]) <= COLLECTIVES
        assert row["bound_by"] in ("compute", "hbm", "interconnect")
        # The kernels that the config asks for are in the module: those of the tower and of the decoder.
        assert (row["kernels"] > 0) == (name in ("encode", "prefill", "reference", "update")), name
    assert sum(programs["update"]["collective_bytes"].values()) > 0
    token = sum(programs["decode"]["collective_bytes_per_token"].values())
    assert 0 < token < sum(programs["policy"]["collective_bytes"].values())


@pytest.mark.slow
def test_sft_in_parts(capsys, model):
    told = compiled(
        capsys, "sft", f"--config.model.path={model}", "--config.batch_size=8", "--config.micro_batches=2",
        "--audio-seconds", "2", "--programs", "sft",
    )  # fmt: skip
    assert (
        list(told["programs"]) == ["sft"]
        and told["bound_by"] == told["programs"]["sft"]["bound_by"]
    )


def test_what_does_not_fit_is_told_and_exits_1(capsys):
    """4e9 parameters, 14 bytes each, on four chips of 16 GiB."""
    told = compiled(
        capsys,
        "grpo",
        "--config.batch_size=4",
        "--programs",
        "policy",
        code=1,
        config="qwen2_5_omni_3b",
    )
    assert not told["fits"] and told["programs"]["policy"]["peak_hbm_gib"] > 15.75


def test_an_unknown_program_is_told(capsys):
    from sari_jax.cli import main

    words = [
        "compile",
        "--config",
        str(ROOT / "configs/grpo_qwen2_audio_7b.py"),
        "--topology",
        "v5e:2x2",
    ]
    assert main([*words, "--config.batch_size=4", "--programs", "updates"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("sari: program 'updates' is unknown; this run has encode, policy")
