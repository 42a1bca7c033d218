"""The loop that serves both stages: the only place with disk, clocks and logs."""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from tqdm import tqdm

from sari_jax.data.curriculum import drop_hopeless
from sari_jax.data.pipeline import batches
from sari_jax.data.processor import Processor
from sari_jax.data.records import Record, read_records
from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import abstract_params
from sari_jax.models.kernels import require
from sari_jax.models.work import chip
from sari_jax.parallel.mesh import make_mesh, onto_mesh, shard_batch
from sari_jax.programs import counted
from sari_jax.train.checkpoint import Checkpoints, claim, fingerprints
from sari_jax.train.config import Run
from sari_jax.train.metrics import Metrics, read_metrics
from sari_jax.train.optimizer import make_optimizer, make_schedule, merge, partition
from sari_jax.train.reference import make_reference
from sari_jax.train.stages import make_stage
from sari_jax.train.state import create_state


def train(run: Run, workdir: Path | str) -> dict[str, float]:
    """Runs or resumes a run to its last step, and tells how many programs that took; returns the last step's metrics.

    Raises:
        InputError: settings, model directory, data or workdir that cannot be used. Nothing is written before all of
            them are read and a first batch is made; a clip that cannot be read may still end a run later.
    """
    with counted() as programs:
        row = _train(run, workdir)
    print(f"{run.stage}: {programs}", file=sys.stderr)
    return row


def _train(run: Run, workdir: Path | str) -> dict[str, float]:
    workdir = Path(workdir)
    model = run.model
    config = read_config(
        model.path, dtype=model.dtype, remat=model.remat, attention=model.attention
    )
    processor = Processor(run.model.path, config)
    records, counts = _records(run)
    mesh = make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor)
    require(config, ways=mesh.shape["tensor"], decoding=run.mesh.decode_tensor)
    params = load_params(run.model.path, config, dtype=run.model.param_dtype, mesh=mesh)
    trainable, frozen = partition(params, run.model.trainable)
    optimizer = make_optimizer(run.optimizer, run.steps)
    reference = make_reference(model, trainable) if run.stage == "grpo" else {}
    state = onto_mesh(mesh, create_state(trainable, optimizer))
    del params, trainable  # donated step by step with the state: nobody else may hold them
    data = batches(
        records,
        processor,
        style(run.data.style),
        batch_size=run.batch_size,
        shapes=run.data.shapes,
        curriculum=run.data.order,
        answers=run.stage == "sft",
        seed=run.seed,
    )
    stage = make_stage(run, config, processor, mesh, optimizer, frozen, reference)
    _try_first_batch(run, processor, records, mesh)
    claim(workdir, {**dataclasses.asdict(run), "fingerprints": fingerprints(run)})
    checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
    totals = {"audio_seconds": 0.0, "examples": 0}
    restored = checkpoints.restore(state, data)
    if restored is not None:
        state, totals = restored
    start = int(state.step)
    _announce(run, records, counts, state.params, frozen, start)

    metrics, schedule = Metrics(workdir, start + 1), make_schedule(run.optimizer, run.steps)
    row = (read_metrics(workdir) or [{}])[-1]  # what a finished run tells again
    bar = tqdm(total=run.steps, initial=start, desc=run.stage, file=sys.stderr, disable=None)
    ahead = None
    for step in range(start + 1, run.steps + 1):
        begun = time.perf_counter()
        batch = next(data) if ahead is None else ahead
        saves = step % run.checkpoint.every == 0 or step == run.steps
        # Nothing is under way at a checkpoint, so that a resumed run does what an undisturbed one does.
        ahead = next(data) if run.stage == "grpo" and run.grpo.overlap and not saves else None
        waited = time.perf_counter() - begun
        sampled = step % run.samples_every == 0 or step == 1
        # Every transfer in a step is an explicit one; an accidental one fails loudly.
        with jax.transfer_guard("disallow"), jax.set_mesh(mesh):
            state, values, samples = stage(state, batch, sampled, ahead)
        totals = {
            "audio_seconds": totals["audio_seconds"] + batch.audio_seconds,
            "examples": totals["examples"] + len(batch.records),
        }
        row = {
            **values,
            "learning_rate": float(schedule(step - 1)),
            "seconds_data": waited,
            "seconds": time.perf_counter() - begun,
            **totals,
        }
        peak = chip(jax.devices()[0].device_kind)
        if peak:
            row["mfu"] = row["model_tflop"] * 1e12 / row["seconds"] / jax.device_count() / peak[0]
        metrics.write(step, row)
        metrics.sample(step, samples)
        shown = {
            name: row[name] for name in ("loss", "reward", "accuracy", "format") if name in row
        }
        bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        bar.update()
        if saves:
            checkpoints.save(state, data, totals)
    bar.close()
    checkpoints.wait()
    checkpoints.close()
    metrics.close()
    return row


def trained_params(run: Run, workdir: Path | str, step: int | None = None) -> tuple[Any, Any]:
    """(config, parameters) of a run's checkpoint: what it trained, and nothing else."""
    config = read_config(run.model.path, dtype=run.model.dtype)
    trainable, _ = partition(abstract_params(config), run.model.trainable)
    dtype = jnp.dtype(run.model.param_dtype)
    abstract = {path: jax.ShapeDtypeStruct(leaf.shape, dtype) for path, leaf in trainable.items()}
    checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
    trained = checkpoints.params(abstract, step)
    checkpoints.close()
    return config, merge(trained, {})


def _records(run: Run) -> tuple[list[Record], dict[str, int]]:
    if not run.data.train:
        raise InputError("config: data.train names no file; give a JSONL of records")
    records = read_records(run.data.train, max_bad_fraction=run.data.max_bad_fraction)
    if run.data.limit:
        records = records[: run.data.limit]
    counts: dict[str, int] = {}
    if (
        run.stage == "grpo"
        and run.data.drop_hopeless
        and any(r.pass_rate is not None for r in records)
    ):
        records, counts = drop_hopeless(records, drop_solved=run.data.drop_solved)
    if len(records) < run.batch_size:
        raise InputError(
            f"{run.data.train}: {len(records)} usable records are fewer than batch_size {run.batch_size}"
        )
    return records, counts


def _try_first_batch(run: Run, processor: Processor, records: list[Record], mesh: Mesh) -> None:
    """So that a chain that is not there, a shape or a mesh that does not fit is told before anything is written."""
    answers = run.stage == "sft"
    if answers:
        for record in records:
            style(run.data.style).render(record)
    examples = [
        processor.question(record, style(run.data.style), answer=answers)
        for record in records[: run.batch_size // jax.process_count()]
    ]
    batch = processor.collate(examples, run.data.shapes)
    for part in batch.parts(run.micro_batches, run.data.shapes):
        shard_batch(mesh, part.seeds)


def _announce(
    run: Run, records: list[Record], counts: dict, trainable: dict, frozen: dict, start: int
) -> None:
    million = lambda flat: sum(array.size for array in flat.values()) / 1e6  # noqa: E731
    print(
        f"{run.stage}: {len(records)} records {counts or ''} in {run.data.order} order, "
        f"{million(trainable):.2f}M parameters trained, {million(frozen):.2f}M frozen, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        + (f", resumed after step {start}" if start else ""),
        file=sys.stderr,
    )
