"""Whole runs: one in this process, stopped and resumed; others as users start them, killed for good."""

import dataclasses
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from runs import (
    STEPS,
    assert_moved,
    assert_same_end_once_killed,
    assert_same_parameters,
    command,
    environment,
    finish,
    rows,
    sari,
    trained,
    untimed,
    untrained,
)
from runs import settings as run_settings

from sari_jax.data.ledger import Ledger
from sari_jax.data.pack import pack
from sari_jax.data.records import read_records, write_records
from sari_jax.errors import InputError
from sari_jax.train.loop import train, trained_params


@pytest.fixture(scope="module")
def undisturbed(light_model, scored, tmp_path_factory):
    """GRPO in this process: the settings, the workdir and the last row."""
    # Decodes a batch while it scores the last one, and draws the next by what it learnt.
    ahead = {"grpo.overlap": True, "data.order": "adaptive", "data.refresh": 2}
    run = run_settings("grpo", light_model, scored, **ahead)
    workdir = tmp_path_factory.mktemp("grpo") / "undisturbed"
    return run, workdir, train(run, workdir)


@pytest.mark.runs
def test_stopped_and_started_again_grpo_ends_with_the_same_bits(undisturbed, tmp_path, capfd):
    """Where no checkpoint is due, with the next batch decoded already."""
    run, workdir, row = undisturbed
    again = tmp_path / "again"
    asked = iter([False, False, True])
    stopped = train(run, again, stop=lambda: next(asked))
    assert (stopped["step"], stopped["finished"]) == (2, False) and row["finished"]
    assert "grpo: asked to stop; step 2 of 3 is safe" in capfd.readouterr().err
    assert train(run, again)["finished"] and "resumed after step 2" in capfd.readouterr().err
    assert_moved(workdir)
    assert [row["updates_behind"] for row in rows(again)] == [0, 1, 1]
    assert untimed(again) == untimed(workdir)
    assert_same_parameters(workdir, again)
    for name in ("samples.jsonl", "questions.jsonl"):
        assert (again / name).read_text() == (workdir / name).read_text()


@pytest.mark.runs
def test_questions_mended_while_it_stood_are_decoded_anew(undisturbed, scored, tmp_path):
    """Completions of what was asked before are not those of what is asked now."""
    run, _, _ = undisturbed
    records = read_records(scored)
    data = tmp_path / "data.jsonl"
    write_records(data, records)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, train=str(data)))
    asked = iter([False, False, True])
    assert train(run, tmp_path / "run", stop=lambda: next(asked))["step"] == 2
    mended = [dataclasses.replace(record, question="Which is it?") for record in records[:4]]
    write_records(data, [*mended, *records[4:]])
    done = train(run, tmp_path / "run")
    assert done["finished"]
    assert [row["updates_behind"] for row in rows(tmp_path / "run")] == [0, 1, 0]


def test_a_finished_run_tells_its_end_again_and_other_settings_are_refused(undisturbed):
    run, workdir, row = undisturbed
    before = rows(workdir)
    assert train(run, workdir) == before[-1] | {"finished": True} == row
    other = dataclasses.replace(run.optimizer, learning_rate=0.5)
    with pytest.raises(InputError, match="another optimizer.learning_rate"):
        train(dataclasses.replace(run, optimizer=other), workdir)
    assert rows(workdir) == before
    with pytest.raises(InputError, match="no checkpoint of step 1"):
        trained_params(run, workdir, 1)


# What a run computes by, and what only says how: the second changes nothing but rounding.
COMPUTED = {
    "data.mix": ("*=1",),
    "data.window": 2,
    "micro_batches": 2,
    "mesh.tensor": 2,
    "optimizer.moments_dtype": "bfloat16",
}
HOW = {"data.workers": 1, "model.remat": "layer"}


@pytest.fixture
def packed(scored, tmp_path):
    pack(tmp_path, read_records(scored), Ledger())
    return tmp_path / "records.jsonl"


@pytest.mark.runs
def test_settings_that_no_other_run_of_sft_has(light_model, scored, packed, tmp_path):
    """Packed shards, read by a process, and layers computed again, against files and layers that are kept."""
    plain, other = tmp_path / "plain", tmp_path / "other"
    train(run_settings("sft", light_model, scored, **COMPUTED), plain)
    train(run_settings("sft", light_model, packed, **COMPUTED, **HOW), other)
    for workdir in (plain, other):
        assert_moved(workdir)
    assert (plain / "questions.jsonl").read_text() == (other / "questions.jsonl").read_text()
    for row, wanted in zip(untimed(other), untimed(plain), strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-4, abs=1e-6)
        assert row["update_norm"] == pytest.approx(wanted["update_norm"], rel=1e-3)


@pytest.mark.runs
def test_settings_that_no_other_run_of_grpo_has(light_model, packed, tmp_path):
    workdir = tmp_path / "run"
    nucleus = {"grpo.top_k": 40, "grpo.top_p": 0.9}
    train(run_settings("grpo", light_model, packed, **COMPUTED, **HOW, **nucleus), workdir)
    assert_moved(workdir)


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_killed_and_started_again_it_ends_with_the_same_bits(
    stage, small_model, whole, scored, tmp_path
):
    undisturbed, again = whole(stage, "small_model"), tmp_path / "killed"
    words = command(stage, small_model, scored, again)
    assert_same_end_once_killed(words, again, undisturbed)
    assert_moved(undisturbed)

    found = untimed(again)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    if stage == "grpo":  # across checkpoints too
        assert [row["updates_behind"] for row in found] == [0] + [1] * (STEPS - 1)
    samples = [json.loads(line) for line in (again / "samples.jsonl").read_text().splitlines()]
    trained_on = [sample for sample in samples if sample["split"] == "train"]
    assert {sample["step"] for sample in trained_on} == {1, 2, 4, 6}
    if stage == "grpo":  # every question of those batches, and every completion
        assert len(trained_on) == 4 * 4
        for sample in trained_on:
            assert len(sample["completions"]) == 2
            # Written with six digits, after a division by a deviation that may be small.
            total = sum(one["advantage"] for one in sample["completions"])
            assert total == pytest.approx(0, abs=1e-5)
    examined = [sample["step"] for sample in samples if sample["split"] == "held_out"]
    expected = [0, 4, 6] if stage == "grpo" else []
    assert examined == [step for step in expected for _ in range(5)]
    assert (again / "held_out.jsonl").read_text() == (undisturbed / "held_out.jsonl").read_text()
    assert list((again / "tensorboard").iterdir())


@pytest.mark.runs
def test_told_to_stop_before_the_first_step_it_starts_from_there(small_model, scored, tmp_path):
    words = command("sft", small_model, scored, tmp_path / "run", "--json")
    process = subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def listens() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    while process.poll() is None and not listens():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, told = process.communicate(timeout=300)
    assert process.returncode == 0, told[-2000:]
    assert json.loads(output) == {"step": 0, "finished": False}
    assert "sft: asked to stop; nothing is trained yet" in told
    done = finish(words)
    assert done.returncode == 0 and json.loads(done.stdout)["finished"], done.stderr[-2000:]
    assert_moved(tmp_path / "run")


@pytest.mark.runs
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_four_devices_go_where_one_goes(stage, small_model, whole, scored, tmp_path):
    """Over six updates, the last five of which move; GRPO's decode in a layout of their own."""
    alone, wide = whole(stage, "small_model"), tmp_path / "wide"
    mesh = {
        "sft": ("--config.mesh.fsdp=2", "--config.mesh.tensor=2"),
        "grpo": ("--config.mesh.fsdp=4", "--config.mesh.decode_tensor=2"),
    }[stage]
    done = finish(command(stage, small_model, scored, wide, *mesh), devices=4)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "4 cpu device(s)" in done.stderr
    for workdir in (alone, wide):
        assert_moved(workdir)
    losses = [[row["loss"] for row in rows(run)] for run in (alone, wide)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5, abs=1e-7)
    assert len(set(losses[0])) == STEPS
    # Against how far each parameter moved: a bias of the keys, which has next to no gradient, moves by little.
    start, one, four = untrained(alone), trained(alone), trained(wide)
    for path, array in one.items():
        gap, moved = (np.linalg.norm(array - other[path]) for other in (four, start))
        assert gap <= 1e-3 * moved, (path, gap, moved)
    if stage == "sft":  # where there is one device only, its model comes out all the same
        done = finish(sari("export", "--workdir", wide, "--out", tmp_path / "model"))
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.runs
def test_updates_that_are_not_finite_end_the_run_and_their_batch_is_named(
    small_model, scored, tmp_path
):
    changes = {
        "optimizer.learning_rate": 1e30,  # the first update is the last from which anything finite comes
        "optimizer.warmup_steps": 0,
        "optimizer.name": "adamw",
        "max_skipped": 2,
        "checkpoint.every": 100,
        "samples_every": 99,
    }
    more = [f"--config.{key}={value}" for key, value in changes.items()]
    words = command("sft", small_model, scored, tmp_path / "run", *more)
    # What was trained is saved, and how many there were is not forgotten.
    for start, last in (("sft: 9 records", 3), ("resumed after step 3", 4)):
        done = finish(words)
        assert done.returncode == 2 and start in done.stderr, done.stderr[-2000:]
        *_, told = done.stderr.splitlines()
        assert told.startswith("sari: loss or gradient was not finite in 2 updates in a row, the")
        assert (
            f"the last at step {last}, whose batch was train-0" in told
            and "Traceback" not in done.stderr
        )
    found = rows(tmp_path / "run")
    assert [row["skipped"] for row in found] == [0, 1, 1, 1]
    assert [row["skipped_total"] for row in found] == [0, 1, 2, 3]


@pytest.mark.runs
def test_a_full_disk_leaves_nothing(whole, tmp_path):
    """A real one, smaller than the model; a limit on files where none may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=1m none "$0"'
    namespace = ["unshare", "--map-root-user", "--mount"]
    allowed = (
        shutil.which("unshare")
        and not subprocess.run(
            [*namespace, "sh", "-c", mount, disk], capture_output=True
        ).returncode
    )
    fill = [*namespace, "sh", "-c", mount] if allowed else ["sh", "-c", "ulimit -f 2000"]
    fill[-1] += ' && "$@"; code=$?; ls -A "$0"; exit $code'
    export = sari("export", "--workdir", whole("sft", "small_model"), "--out", disk / "model")
    done = finish([*fill, str(disk), *export])
    assert done.returncode == 2, done.stderr[-2000:]
    assert "cannot be written" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
    assert not done.stdout
