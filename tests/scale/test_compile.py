"""`sari compile` with the real TPU compiler."""

import json
import os
import subprocess
import sys
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


def sari(stage, *words, config="qwen2_audio_7b"):
    """Runs `sari compile` as users do: in a process of its own, without the tests' type checks and devices."""
    file = ROOT / f"configs/{stage}.py:{config}"
    command = [
        sys.executable,
        "-m",
        "sari_jax.cli",
        "compile",
        "--config",
        file,
        "--topology",
        "v5e:2x2",
    ]
    environ = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *words], env=environ, capture_output=True, text=True, timeout=600
    )


def compiled(stage, *words, code=0, **rest):
    done = sari(stage, "--json", *words, **rest)
    assert done.returncode == code, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.tools
def test_grpo_on_four_chips(model):
    result = compiled(
        "grpo", f"--config.model.path={model}", "--config.batch_size=4",
        "--config.grpo.num_completions=2", "--config.grpo.max_tokens=16", "--config.mesh.decode_tensor=2",
        "--config.model.attention=splash", "--audio-seconds", "2", "--text-tokens", "16",
    )  # fmt: skip
    assert (result["topology"], result["chips"], result["hbm_gib_per_chip"], result["fits"]) == (
        "v5e:2x2",
        4,
        16,
        True,
    )
    programs = result["programs"]
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


@pytest.mark.tools
def test_sft_in_parts(model):
    result = compiled(
        "sft", f"--config.model.path={model}", "--config.batch_size=8", "--config.micro_batches=2",
        "--config.mesh.decode_tensor=2",
        "--audio-seconds", "2", "--programs", "sft",
    )  # fmt: skip
    assert list(result["programs"]) == ["sft"] and not result["complete"]


@pytest.mark.tools
def test_a_run_that_does_not_fit_exits_1():
    """4e9 parameters, 14 bytes each, on four chips of 16 GiB."""
    result = compiled(
        "grpo",
        "--config.batch_size=4",
        "--programs",
        "policy",
        code=1,
        config="qwen2_5_omni_3b",
    )
    assert not result["fits"] and result["programs"]["policy"]["peak_hbm_gib"] > 15.75


@pytest.mark.tools
def test_an_unknown_program():
    done = sari(
        "grpo", "--config.batch_size=4", "--config.mesh.decode_tensor=4", "--programs", "updates"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("sari: program 'updates' is unknown; this run has encode, policy")


@pytest.mark.parametrize(
    "refusal, gib",
    [
        (
            "RESOURCE_EXHAUSTED: ... Ran out of memory in memory space hbm. Used 17.25G of 15.75G hbm.",
            17.25,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (50.5G)"
            " exceeds available HBM (15.75G).",
            50.5,
        ),
        ("INTERNAL: Mosaic failed to compile", None),
    ],
)
def test_the_memory_that_a_refused_program_needs(refusal, gib):
    from sari_jax.scale.compile import needed

    assert needed(refusal) == (gib and gib * 2**30)
