"""The loop that serves both stages: the only place with disk, clocks and logs."""

import dataclasses
import hashlib
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Batch, Processor
from sari_jax.data.records import Record
from sari_jax.data.roster import digest
from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.kernels import require
from sari_jax.models.work import chip
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import all_rows, local_row_indices, make_mesh, onto_mesh, shard_batch
from sari_jax.programs import counted
from sari_jax.rl.rewards.functions import Functions, check_functions
from sari_jax.rl.rewards.registry import REWARDS, Scorer, make_scorer
from sari_jax.train.callbacks import Callback, StepEvent
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.config import Run
from sari_jax.train.feed import Feed, TooManyBad
from sari_jax.train.grpo import make_grpo
from sari_jax.train.held_out import HeldOut
from sari_jax.train.metrics import Metrics, examined, read_metrics
from sari_jax.train.optimizer import learning_rates, make_optimizer, merge
from sari_jax.train.parameters import shapes_of, starting_params, table
from sari_jax.train.preemption import Stop
from sari_jax.train.questions import Questions, read_held_out, read_questions
from sari_jax.train.reference import make_reference
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import Sample, sample_row
from sari_jax.train.stages import make_sft
from sari_jax.train.state import create_state
from sari_jax.train.workdir import claim, fingerprints, flat, refuse_changes

NAMED = 8  # records of a batch in a message
DECODED = "decoded"  # a digest of the questions whose completions a checkpoint holds
SHOWN = ("loss", "reward", "accuracy", "format")


def train(
    run: Run,
    workdir: Path | str,
    stop: Stop = lambda: False,
    *,
    rewards: Functions = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Runs or resumes a run to its last step, and tells how many programs that took.

    On several hosts all of them call it; the first one writes metrics and samples.

    Args:
        stop: asked before every step, whether to end there.
        rewards: a function for each name of `grpo.reward_functions`.
        callbacks: each is called after every step, in the main thread of the first host. What one raises ends the
            run, which goes on from its last checkpoint.

    Returns:
        The last step's metrics, `step`, and whether the run is `finished`.

    Raises:
        InputError: settings, model directory, data or workdir that cannot be used. Nothing is written before all of
            them are read and every record is checked. Records that turn out unusable later end a run once there are
            more than `data.max_bad_fraction` of them, and so do updates that are not finite, `max_skipped` of them in
            a row. What was trained by then is saved.
    """
    with counted() as programs:
        trainer = Trainer(run, Path(workdir), rewards, callbacks)
        with trainer.closing():
            row = trainer.fit(stop)
    hosts.log(f"{run.stage}: {programs}")
    return row


class NotFinite(InputError):
    """Too many updates in a row were not finite; every host raises it at the same step."""


class Trainer:
    """A run: what one step needs, and what lasts from step to step.

    Attributes:
        state: parameters and optimizer after `step` steps.
        totals: sums over all steps, which a checkpoint holds too.
        position: the batch that the next step starts with.
        ahead: that batch, where it is read already because its completions are decoded already.
        owed: whether the held-out questions are to be answered after the step that was made last.
    """

    def __init__(self, run: Run, workdir: Path, rewards: Functions, callbacks: Sequence[Callback]):
        self.run, self.workdir = run, workdir
        self.callbacks = callbacks
        with hosts.raise_on_all_hosts():
            config = read_config(run.model.path, **run.model.network)
            processor = Processor(run.model.path, config)
            check_functions(rewards, run.grpo.reward_functions, taken=REWARDS)
            score = make_scorer(run.reward_weights, run.grpo.reward_file, rewards)
            settings = {**dataclasses.asdict(run), "fingerprints": fingerprints(run, rewards)}
            refuse_changes(workdir, settings)
        hosts.assert_same_on_all_hosts({**flat(settings), **hosts.versions()})
        self.mesh = make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor)
        require(config, num_shards=self.mesh.shape["tensor"], decoding=run.mesh.decode_tensor)
        self._try_mesh()
        self.questions = read_questions(run, workdir, processor)
        self.asked = read_held_out(run, processor)
        self.schedule = self.questions.schedule(run)
        self._build(config, processor, score)
        _claim(workdir, settings, self.questions)
        self.checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
        self._begin()

    def _try_mesh(self) -> None:
        """Tells before anything is read that a batch does not go with the mesh or with its parts."""
        run, rows = self.run, len(local_row_indices(self.mesh, self.run.batch_size))
        with hosts.raise_on_all_hosts():
            if rows % run.micro_batches:
                raise InputError(
                    f"config: micro_batches = {run.micro_batches} does not divide the {rows} rows of a host"
                )
        for part in np.split(np.zeros(rows, np.int32), run.micro_batches):
            shard_batch(self.mesh, part)

    def _build(self, config: AudioLMConfig, processor: Processor, score: Scorer) -> None:
        """The parameters, and what a step does with them."""
        run, mesh = self.run, self.mesh
        trainable, self.frozen = starting_params(run, config, mesh)
        optimizer = make_optimizer(run.optimizer, run.updates)
        reference = make_reference(run.model, trainable) if run.has_reference else {}
        self.state = onto_mesh(mesh, create_state(trainable, optimizer))
        del trainable  # donated step by step with the state: nobody else may hold them
        rollouts = Rollouts(run, config, mesh, self.frozen)
        make_stage = {"sft": make_sft, "grpo": make_grpo}[run.stage]
        parts = optimizer, self.frozen, reference, rollouts, score
        self.stage = make_stage(run, config, processor, mesh, *parts)
        self.held_out = HeldOut(run, self.asked, processor, mesh, rollouts, score)
        answers, rows = run.stage == "sft", tuple(local_row_indices(mesh, run.batch_size))
        asked = style(run.data.style)
        reader = Reader(self.questions.records, processor, asked, run.data.shapes, answers, rows)
        batches = Batches(self.schedule, reader, workers=run.data.workers)
        self.feed = Feed(run, self.questions, reader, batches)

    def _begin(self) -> None:
        """At the newest checkpoint, or at step 0."""
        sums = ("audio_seconds", "examples", "skipped_in_a_row", "skipped_total")
        self.totals = dict.fromkeys(sums, 0) | {"audio_seconds": 0.0}
        self.position, self.ahead, self._mark, self._updating = 0, None, None, False
        resumed = self._restore()
        self.start = self.step = int(self.state.step)
        if self.step > self.run.steps:
            hosts.raise_collectively(
                f"{self.workdir}: holds {self.step} steps, more than steps = {self.run.steps}; ask for as many at"
                " least, or name a new --workdir"
            )
        self._announce()
        # Answered once a checkpoint holds the step: what a kill has cut short is done again.
        answered = resumed and self.step in examined(self.workdir)
        self.owed = self.held_out.due(self.step) and not answered
        self.metrics = None
        if hosts.is_primary():
            start = self.step + 1 if resumed else 0
            self.metrics = Metrics(self.workdir, start, owed=self.owed)
        self.bar = tqdm(
            total=self.run.steps,
            initial=self.start,
            desc=self.run.stage,
            file=sys.stderr,
            disable=None if hosts.is_primary() else True,
        )

    def fit(self, stop: Stop) -> dict[str, Any]:
        """Steps until the last one, or until it is told to stop."""
        row = (read_metrics(self.workdir) or [{}])[-1]  # what a finished run tells again
        self.owed = self.owed and self._examine(stop)
        while self.step < self.run.steps and not stop():
            row = self._advance()
            self.owed = self.held_out.due(self.step)
            if self._due():
                self._save()
            self.owed = self.owed and self._examine(stop)
        finished = self.step == self.run.steps and not self.owed
        if not finished:
            self._stopped()
        return {**row, "step": self.step, "finished": finished}

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Whatever ends the run inside, what was trained is saved and what was being written is whole.

        A host of several that fails alone leaves at once instead: the others would wait for it.
        """
        try:
            yield
        except TooManyBad as error:
            try:
                self._save()
            finally:
                self._close()
            hosts.raise_collectively(f"{error}. {self._safe()}")
        except NotFinite as error:
            try:
                self._save()
            finally:
                self._close()
            hosts.raise_collectively(str(error))
        except BaseException as error:
            if not hosts.is_multihost():
                with suppress(InputError):  # a full disk; `error` is what the user has to know
                    if isinstance(error, InputError):
                        self._save()
                    self._close()
            raise
        self._close()

    def _advance(self) -> dict[str, float]:
        """One step, written down."""
        run, begun = self.run, time.perf_counter()
        # Until the step is made, a checkpoint goes on from here.
        self._mark = self.feed.state(self.position)
        batch = self.ahead or self.feed.take()
        overlaps = run.stage == "grpo" and run.grpo.overlap and self.step + 1 < run.steps
        ahead = self.feed.take() if overlaps else None
        waited, step = time.perf_counter() - begun, self.step + 1
        sampled = step % run.samples_every == 0 or step == 1
        # Every transfer in a step is an explicit one; an accidental one fails loudly.
        self._updating = True
        with jax.transfer_guard("disallow"), jax.set_mesh(self.mesh):
            self.state, values, samples, numbers, pass_rates = self.stage.update(
                self.state, batch, sampled, ahead, self._another
            )
        self._updating = False
        self.feed.learn(numbers[-run.batch_size :], pass_rates[-run.batch_size :])
        self.step, self.ahead = step, ahead
        # What a checkpoint holds beside it: where the next batch begins, and what is decoded of that one already.
        self.position, self._mark = self.feed.position - (ahead is not None), None
        self.totals, values = _totals_after(run, step, self.totals, values)
        seconds = time.perf_counter() - begun
        row = {**values, "seconds_data": waited, "seconds": seconds, **self.totals}
        row["records_skipped"] = len(self.feed.skipped)
        if peak := chip(jax.devices()[0].device_kind):
            row["mfu"] = row["model_tflop"] * 1e12 / seconds / jax.device_count() / peak[0]
        self._write(row, samples, numbers, pass_rates)
        if hosts.is_primary():
            self._call_back(row, samples)
        if self.totals["skipped_in_a_row"] >= run.max_skipped:
            raise NotFinite(_not_finite(run, step, self.mesh, batch, self.questions.records))
        return row

    def _another(self, numbers: list[int], pass_rates: list[float]) -> Batch:
        """A step that draws several batches has learnt of each before it draws the next, as several steps have."""
        self.feed.learn(numbers, pass_rates)
        return self.feed.take()

    def _write(
        self,
        row: dict[str, float],
        samples: list[Sample],
        numbers: list[int],
        pass_rates: list[float],
    ) -> None:
        skipped = self.feed.fresh()
        if self.metrics:
            records = self.questions.records
            self.metrics.write(self.step, row)
            self.metrics.ask(self.step, [records[number] for number in numbers], pass_rates)
            self.metrics.sample(self.step, samples, records)
            self.metrics.skip(self.step, skipped)
        shown = {name: f"{row[name]:.3f}" for name in SHOWN if name in row}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def _call_back(self, row: dict[str, float], samples: list[Sample]) -> None:
        records = self.questions.records
        rows = tuple(sample_row(records[one.number], "train", one.completions) for one in samples)
        event = StepEvent(step=self.step, metrics=row, samples=rows)
        for callback in self.callbacks:
            callback(event)

    def _examine(self, stop: Stop) -> bool:
        """Whether it was told to stop before all held-out questions were answered."""
        with jax.transfer_guard("disallow"), jax.set_mesh(self.mesh):
            found = self.held_out(self.state, stop)
        if found is None:
            return True
        if self.metrics:
            self.metrics.skip(self.step, found.skipped, "held_out")
            self.metrics.sample(self.step, found.samples, self.asked.records, "held_out")
            self.metrics.examine(self.step, found.scores)
        accuracy, rows = found.scores["accuracy"], found.scores["rows"]
        hosts.log(f"held out after step {self.step}: accuracy {accuracy:.3f} of {rows}")
        return False

    def _due(self) -> bool:
        """Whether a checkpoint is."""
        return (
            self.step % self.run.checkpoint.every == 0 or self.step == self.run.steps or self.owed
        )

    def _restore(self) -> bool:
        """Goes on from the newest checkpoint, if there is one."""
        restored = self.checkpoints.restore(self.state)
        if restored is None:
            return False
        self.state, self.totals = restored.state, self.totals | restored.counters
        data = dict(restored.data)
        decoded = data.pop(DECODED, "")
        self.feed.restore(data)
        self.position = self.feed.position
        if restored.under_way is not None:
            self.ahead = self.feed.take()
            # What has been mended since is another question, whose completions are decoded anew.
            if not decoded or decoded == self._asked(self.ahead):
                with jax.set_mesh(self.mesh):
                    self.stage.take_up(self.state, self.ahead, restored.under_way)
        return True

    def _asked(self, batch: Batch) -> str:
        """A digest of a batch's questions over all hosts, row by row, and of how often each is asked in it."""
        numbers, turns = all_rows(self.mesh, (batch.seeds, batch.repeats))
        asked = zip(numbers.tolist(), turns.tolist(), strict=True)
        rows = [f"{digest(self.questions.records[number])} {turn}" for number, turn in asked]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def _save(self) -> None:
        """Saves what the last step left, unless that is what the run started from."""
        whole = not any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))
        if self.step > self.start and whole:
            data = self._mark or self.feed.state(self.position)
            # An update that was cut short has used up what was decoded for it.
            decoded = None if self._updating else self.stage.under_way()
            if decoded:
                data[DECODED] = self._asked(self.ahead)
            self.checkpoints.save(self.state, data, self.totals, decoded)

    def _stopped(self) -> None:
        self._save()
        self.checkpoints.wait()
        hosts.log(f"{self.run.stage}: told to stop; {self._safe()}")

    def _safe(self) -> str:
        if not self.step:
            return "nothing is trained yet, and the same command goes on from there"
        done = f"step {self.step} of {self.run.steps}"
        return f"{done} is safe in {self.workdir}, and the same command goes on from there"

    def _close(self) -> None:
        self.bar.close()
        self.feed.close()
        if self.metrics:
            self.metrics.close()
        try:
            self.checkpoints.wait()
        finally:
            self.checkpoints.close()

    def _announce(self) -> None:
        run, count = self.run, sum(record is not None for record in self.questions.records)
        learn, rest = (
            sum(array.size for array in flat.values()) / 1e6
            for flat in (self.state.params, self.frozen)
        )
        hosts.log(
            f"{run.stage}: {count} records in {run.data.order} order, {learn:.2f}M parameters trained, {rest:.2f}M"
            f" frozen, {jax.device_count()} {jax.devices()[0].platform} device(s)"
            + (f" on {jax.process_count()} hosts" if hosts.is_multihost() else "")
            + (f", resumed after step {self.start}" if self.start else "")
        )
        if run.data.keep_features_gb and hosts.is_multihost():
            hosts.log(
                f"{run.stage}: data.keep_features_gb is for one host; the tower runs in every step"
            )
        hosts.log(table(self.state.params))


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


def _claim(workdir: Path, settings: dict[str, Any], questions: Questions) -> None:
    """One host writes the settings and the roster, the others see them: a workdir is one folder for all."""
    hosts.assert_same_on_all_hosts(
        {"questions": zlib.crc32(repr(questions.roster).encode(errors="replace"))}
    )
    with hosts.raise_on_all_hosts():
        if hosts.is_primary():
            claim(workdir, settings, questions.roster)
    with hosts.raise_on_all_hosts():
        if not (workdir / "config.json").exists():
            raise InputError(
                f"{workdir}: what the first host writes there is not seen here; name a --workdir that all"
                " hosts share"
            )


def _not_finite(run: Run, step: int, mesh: Mesh, batch: Batch, records: list[Record | None]) -> str:
    ids = [records[number].id for number in all_rows(mesh, batch.seeds)]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return (
        f"loss or gradient was not finite in {run.max_skipped} updates in a row, the last at step {step}, whose"
        f" batch was {', '.join(ids[:NAMED])}{more}; none of them changed the parameters. Look at these records, or"
        " lower optimizer.learning_rate, and start again in a new --workdir"
    )
