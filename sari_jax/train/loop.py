"""The loop that serves both stages: the only place with disk, clocks and logs."""

import dataclasses
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from sari_jax.data.curriculum import drop
from sari_jax.data.lengths import sound_lengths
from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Batch, Processor
from sari_jax.data.records import Record, read_records
from sari_jax.data.schedule import Schedule, make_schedule
from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.kernels import require
from sari_jax.models.work import chip
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import all_rows, make_mesh, onto_mesh, own_rows, shard_batch
from sari_jax.programs import counted
from sari_jax.rl.rewards.registry import Scorer, make_scorer
from sari_jax.train.checkpoint import Checkpoints, claim, fingerprints, flat
from sari_jax.train.config import Run
from sari_jax.train.grpo import make_grpo
from sari_jax.train.held_out import HeldOut
from sari_jax.train.metrics import Metrics, examined, read_metrics
from sari_jax.train.optimizer import learning_rates, make_optimizer, merge
from sari_jax.train.parameters import shapes_of, starting_params, table
from sari_jax.train.preemption import Stop
from sari_jax.train.reference import make_reference
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.stages import make_sft
from sari_jax.train.state import TrainState, create_state

NAMED = 8  # records of a batch in a message


def train(run: Run, workdir: Path | str, stop: Stop = lambda: False) -> dict[str, Any]:
    """Runs or resumes a run to its last step, and tells how many programs that took.

    On several hosts all of them call it; the first one writes metrics and samples.

    Args:
        stop: asked before every step, whether to end there.

    Returns:
        The last step's metrics, `step`, and whether the run is `finished`.

    Raises:
        InputError: settings, model directory, data or workdir that cannot be used. Nothing is written before all of
            them are read and a first batch is made; a clip that cannot be read may still end a run later, and so do
            updates that are not finite, `max_skipped` of them in a row.
    """
    with counted() as programs:
        row = _train(run, Path(workdir), stop)
    _tell(f"{run.stage}: {programs}")
    return row


class Given(NamedTuple):
    """What a run is made of, but for the weights: all that may be unusable is told before they are read.

    Attributes:
        counts: of records that were kept and dropped.
        settings: as the workdir keeps them, with digests of model and data.
    """

    config: AudioLMConfig
    processor: Processor
    score: Scorer
    records: list[Record]
    counts: dict[str, int]
    held_out: list[Record]
    schedule: Schedule
    settings: dict[str, Any]


def _given(run: Run) -> Given:
    with hosts.together():
        config = read_config(run.model.path, **run.model.network)
        processor = Processor(run.model.path, config)
        score = make_scorer(run.reward_weights, run.grpo.reward_file)
        records, counts = _records(run)
        others = _held_out(run)
        settings = {**dataclasses.asdict(run), "fingerprints": fingerprints(run)}
        lengths = None
        if run.data.window > 1:
            lengths = sound_lengths(records, run.data.shapes.audio_seconds, processor.seconds)
        curriculum, size = run.data.curriculum, run.batch_size
        schedule = make_schedule(
            records, curriculum, batch_size=size, seed=run.seed, lengths=lengths
        )
    sizes = {} if lengths is None else {"sound lengths": zlib.crc32(lengths)}
    hosts.agree({**flat(settings), **sizes, **hosts.versions()})
    return Given(config, processor, score, records, counts, others, schedule, settings)


def _train(run: Run, workdir: Path, stop: Stop) -> dict[str, Any]:
    given, model = _given(run), run.model
    config, processor, records = given.config, given.processor, given.records
    mesh = make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor)
    require(config, ways=mesh.shape["tensor"], decoding=run.mesh.decode_tensor)
    rows = own_rows(mesh, run.batch_size)
    trainable, frozen = starting_params(run, config, mesh)
    optimizer = make_optimizer(run.optimizer, run.updates)
    reference = make_reference(model, trainable) if run.has_reference else {}
    state = onto_mesh(mesh, create_state(trainable, optimizer))
    del trainable  # donated step by step with the state: nobody else may hold them
    answer_style, shapes = style(run.data.style), run.data.shapes
    reader = Reader(records, processor, answer_style, shapes, run.stage == "sft", tuple(rows))
    data = Batches(given.schedule, reader, workers=run.data.workers)
    rollouts = Rollouts(run, config, mesh, frozen)
    make_stage = {"sft": make_sft, "grpo": make_grpo}[run.stage]
    parts = optimizer, frozen, reference, rollouts, given.score
    stage = make_stage(run, config, processor, mesh, *parts)
    held_out = HeldOut(run, given.held_out, processor, mesh, rollouts, given.score)
    _try_first_batch(run, processor, records, rows, mesh)
    _claim(workdir, given.settings)
    checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
    totals = {"audio_seconds": 0.0, "examples": 0, "skipped_in_a_row": 0, "skipped_total": 0}
    size, ahead = run.batch_size, None
    restored = checkpoints.restore(state)
    if restored is not None:
        state, totals = restored.state, totals | restored.counters
        data.set_state(restored.data)
        if restored.under_way is not None:
            ahead = next(data)
            with jax.set_mesh(mesh):
                stage.take_up(state, ahead, restored.under_way)

    def another(numbers: list[int], pass_rates: list[float]) -> Batch:
        """A step that draws several batches has learnt of each before it draws the next, as several steps have."""
        data.learn(numbers, pass_rates)
        return next(data)

    start = step = int(state.step)
    _announce(run, records, given.counts, state.params, frozen, start)

    # Examined once a checkpoint holds the step: what a kill has cut short is done again.
    owed = held_out.due(start) and not (restored and start in examined(workdir))
    metrics = None
    if hosts.first():
        metrics = Metrics(workdir, start + 1 if restored else 0, owed=owed)

    def examine(state: TrainState, step: int) -> bool:
        """Whether it was told to stop before all questions were answered."""
        with jax.transfer_guard("disallow"), jax.set_mesh(mesh):
            found = held_out(state, stop)
        if found is None:
            return True
        values, answers = found
        if metrics:
            metrics.sample(step, answers, given.held_out, "held_out")
            metrics.examine(step, values)
        _tell(f"held out after step {step}: accuracy {values['accuracy']:.3f} of {values['rows']}")
        return False

    row = (read_metrics(workdir) or [{}])[-1]  # what a finished run tells again
    bar = tqdm(
        total=run.steps,
        initial=start,
        desc=run.stage,
        file=sys.stderr,
        disable=None if hosts.first() else True,
    )
    if owed:
        owed = examine(state, start)
    while step < run.steps and not stop():
        step += 1
        begun = time.perf_counter()
        batch = next(data) if ahead is None else ahead
        overlaps = run.stage == "grpo" and run.grpo.overlap and step < run.steps
        ahead = next(data) if overlaps else None
        waited = time.perf_counter() - begun
        sampled = step % run.samples_every == 0 or step == 1
        # Every transfer in a step is an explicit one; an accidental one fails loudly.
        with jax.transfer_guard("disallow"), jax.set_mesh(mesh):
            state, values, samples, numbers, pass_rates = stage.update(
                state, batch, sampled, ahead, another
            )
        data.learn(numbers[-size:], pass_rates[-size:])
        # What a checkpoint holds beside it: where the next batch begins, and what is decoded of that one already.
        position = data.position - (ahead is not None)
        totals, values = _totals_after(run, step, totals, values)
        seconds = time.perf_counter() - begun
        row = {**values, "seconds_data": waited, "seconds": seconds, **totals}
        if peak := chip(jax.devices()[0].device_kind):
            row["mfu"] = row["model_tflop"] * 1e12 / seconds / jax.device_count() / peak[0]
        if metrics:
            metrics.write(step, row)
            metrics.ask(step, [records[number] for number in numbers], pass_rates)
            metrics.sample(step, samples, records)
        shown = {
            name: row[name] for name in ("loss", "reward", "accuracy", "format") if name in row
        }
        bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        bar.update()
        if totals["skipped_in_a_row"] >= run.max_skipped:
            checkpoints.wait()
            _give_up(run, step, mesh, batch, records)
        owed = held_out.due(step)
        if step % run.checkpoint.every == 0 or step == run.steps or owed:
            checkpoints.save(state, data.state(position), totals, stage.under_way())
        if owed:
            owed = examine(state, step)
    bar.close()
    finished = step == run.steps and not owed
    if not finished:
        if step > start:  # otherwise as it was
            checkpoints.save(state, data.state(position), totals, stage.under_way())
        checkpoints.wait()
        safe = (
            f"step {step} of {run.steps} is safe in {workdir}" if step else "nothing is trained yet"
        )
        _tell(f"{run.stage}: told to stop; {safe}, and the same command goes on from there")
    checkpoints.wait()
    checkpoints.close()
    data.close()
    if metrics:
        metrics.close()
    return {**row, "step": step, "finished": finished}


def _totals_after(
    run: Run, step: int, totals: dict[str, float], values: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """(the run's totals after this step, the step's other values and its learning rate)"""
    values, each, skipped = dict(values), run.updates_per_step, int(values["skipped"])
    # An update that is skipped does not move the schedule on.
    updates = each * (step - 1) - totals["skipped_total"]
    values["learning_rate"] = float(learning_rates(run.optimizer, run.updates)(updates))
    return {
        "audio_seconds": totals["audio_seconds"] + values.pop("audio_seconds"),
        "examples": totals["examples"] + values.pop("examples"),
        "skipped_in_a_row": totals["skipped_in_a_row"] + skipped if skipped == each else 0,
        "skipped_total": totals["skipped_total"] + skipped,
    }, values


def trained_params(run: Run, workdir: Path | str, step: int | None = None) -> tuple[Any, Any]:
    """(config, parameters) of a run's checkpoint: what it trained, and nothing else."""
    config = read_config(run.model.path, **run.model.network)
    abstract, _ = shapes_of(run.model, config)
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
    dropped = {"hopeless": run.data.drop_hopeless, "solved": run.data.drop_solved}
    known = any(record.pass_rate is not None for record in records)
    if run.stage == "grpo" and known and any(dropped.values()):
        records, counts = drop(records, **dropped)
    if len(records) < run.batch_size:
        raise InputError(
            f"{run.data.train}: {len(records)} usable records are fewer than batch_size {run.batch_size}"
        )
    return records, counts


def _held_out(run: Run) -> list[Record]:
    if not run.held_out.every:
        return []
    records = read_records(run.held_out.data)
    return records[: run.held_out.limit] if run.held_out.limit else records


def _try_first_batch(
    run: Run, processor: Processor, records: list[Record], rows: list[int], mesh: Mesh
) -> None:
    """So that a chain that is not there, a shape or a mesh that does not fit is told before anything is written."""
    answers = run.stage == "sft"
    with hosts.together():
        if answers:
            for record in records:
                style(run.data.style).render(record)
        examples = [
            processor.question(records[row], style(run.data.style), answer=answers) for row in rows
        ]
        batch = processor.collate(examples, run.data.shapes)
    for part in batch.parts(run.micro_batches, run.data.shapes):
        shard_batch(mesh, part.seeds)


def _claim(workdir: Path, settings: dict[str, Any]) -> None:
    """One host writes the settings, the others see them: a workdir is one folder for all."""
    with hosts.together():
        if hosts.first():
            claim(workdir, settings)
    with hosts.together():
        if not (workdir / "config.json").exists():
            raise InputError(
                f"{workdir}: what the first host writes there is not seen here; name a --workdir that all"
                " hosts share"
            )


def _give_up(run: Run, step: int, mesh: Mesh, batch: Batch, records: list[Record]) -> None:
    ids = [records[number].id for number in all_rows(mesh, batch.seeds)]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    hosts.end(
        f"loss or gradient was not finite in {run.max_skipped} updates in a row, the last at step {step}, whose"
        f" batch was {', '.join(ids[:NAMED])}{more}; none of them changed the parameters. Look at these records, or"
        " lower optimizer.learning_rate, and start again in a new --workdir"
    )


def _tell(line: str) -> None:
    if hosts.first():
        tqdm.write(line, file=sys.stderr)  # above a bar, where there is one


def _announce(
    run: Run, records: list[Record], counts: dict, trainable: dict, frozen: dict, start: int
) -> None:
    million = lambda flat: sum(array.size for array in flat.values()) / 1e6  # noqa: E731
    _tell(
        f"{run.stage}: {len(records)} records {counts or ''} in {run.data.order} order, "
        f"{million(trainable):.2f}M parameters trained, {million(frozen):.2f}M frozen, "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s)"
        + (f" on {jax.process_count()} hosts" if hosts.several() else "")
        + (f", resumed after step {start}" if start else "")
    )
    if run.data.keep_features_gb and hosts.several():
        _tell(f"{run.stage}: data.keep_features_gb is for one host; the tower runs in every step")
    _tell(table(trainable))
