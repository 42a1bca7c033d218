"""The state of a run between its steps, and what a run does with disk, clocks and logs."""

import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from sari_jax.data.pipeline import Batches, Reader
from sari_jax.data.processor import Batch
from sari_jax.data.roster import digest
from sari_jax.data.styles import style
from sari_jax.errors import InputError
from sari_jax.models.work import chip
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import all_rows, local_row_indices, put_on_mesh
from sari_jax.train.callbacks import Callback, StepEvent
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.config import Run
from sari_jax.train.feed import Feed, TooManyBad
from sari_jax.train.grpo import GrpoStage
from sari_jax.train.held_out import HeldOut
from sari_jax.train.inputs import Inputs, claim_workdir
from sari_jax.train.metrics import Metrics, examined, read_metrics
from sari_jax.train.optimizer import learning_rates, make_optimizer
from sari_jax.train.parameters import starting_params, table
from sari_jax.train.preemption import Stop
from sari_jax.train.reference import make_reference
from sari_jax.train.rollouts import Rollouts
from sari_jax.train.samples import sample_row
from sari_jax.train.sft import SftStage
from sari_jax.train.stages import Stage, StepResult
from sari_jax.train.state import create_state

NAMED = 8  # records that a message names
# The key of a digest of the questions whose prefetched completions a checkpoint holds.
PREFETCHED_DIGEST = "decoded"
SHOWN = ("loss", "reward", "accuracy", "format")  # metrics beside the progress bar


class NotFinite(InputError):
    """Too many updates in a row were not finite; every host raises it at the same step."""


@dataclasses.dataclass
class Totals:
    """Sums over all steps of a run. A checkpoint holds them."""

    audio_seconds: float = 0.0
    examples: int = 0
    skipped_in_a_row: int = 0
    skipped_total: int = 0

    def add(self, metrics: dict[str, float], updates: int) -> None:
        """Adds a step's metrics. Updates are skipped in a row as long as all `updates` of every step are."""
        skipped = int(metrics["skipped"])
        self.audio_seconds += metrics["audio_seconds"]
        self.examples += metrics["examples"]
        self.skipped_in_a_row = self.skipped_in_a_row + skipped if skipped == updates else 0
        self.skipped_total += skipped


class Trainer:
    """A run: what a step needs, and what lasts from step to step.

    Attributes:
        state: parameters and optimizer after `step` steps.
        totals: sums over all steps.
    """

    def __init__(self, run: Run, inputs: Inputs, workdir: Path):
        self.run, self.workdir, self._inputs = run, workdir, inputs
        self.mesh, self._questions = inputs.mesh, inputs.questions
        self._stage = self._build()
        self._feed = self._make_feed()
        claim_workdir(workdir, inputs)
        self._checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
        self.totals = Totals()
        # The next step starts with the batch at this position. `_next_batch` is that batch, if its completions are
        # decoded already. `_resume_from` is the data's state while a step is under way.
        self._position = 0
        self._next_batch: Batch | None = None
        self._resume_from: dict[str, Any] | None = None
        self._updating = False
        resumed = self._restore()
        self.start = self.step = int(self.state.step)
        self._open_logs(resumed)

    def _build(self) -> Stage:
        """Loads the parameters, and makes the stage that trains them."""
        run, inputs, mesh = self.run, self._inputs, self.mesh
        trainable, self._frozen = starting_params(run, inputs.config, mesh)
        optimizer = make_optimizer(run.optimizer, run.updates)
        reference = make_reference(run.model, trainable) if run.has_reference else {}
        self.state = put_on_mesh(mesh, create_state(trainable, optimizer))
        del trainable  # every step donates the state: no other reference may be left
        rollouts = Rollouts(run, inputs.config, mesh, self._frozen)
        self._held_out = HeldOut(
            run, inputs.held_out, inputs.processor, mesh, rollouts, inputs.compute_rewards
        )
        if run.stage == "sft":
            return SftStage(
                run,
                inputs.config,
                inputs.processor,
                mesh,
                optimizer=optimizer,
                frozen=self._frozen,
                rollouts=rollouts,
                compute_rewards=inputs.compute_rewards,
            )
        return GrpoStage(
            run,
            inputs.config,
            inputs.processor,
            mesh,
            optimizer=optimizer,
            frozen=self._frozen,
            reference=reference,
            rollouts=rollouts,
            compute_rewards=inputs.compute_rewards,
        )

    def _make_feed(self) -> Feed:
        run, questions = self.run, self._questions
        reader = Reader(
            questions.records,
            self._inputs.processor,
            style(run.data.style),
            run.data.shapes,
            answers=run.stage == "sft",
            rows=tuple(local_row_indices(self.mesh, run.batch_size)),
        )
        batches = Batches(questions.schedule(run), reader, workers=run.data.workers)
        return Feed(run, questions, reader, batches)

    def _restore(self) -> bool:
        """Restores the newest checkpoint, if there is one."""
        restored = self._checkpoints.restore(self.state)
        if restored is None:
            return False
        self.state, self.totals = restored.state, Totals(**restored.counters)
        if int(self.state.step) > self.run.steps:
            hosts.raise_collectively(
                f"{self.workdir}: holds {int(self.state.step)} steps, more than steps = {self.run.steps}; ask for as"
                " many at least, or name a new --workdir"
            )
        data = dict(restored.data)
        decoded = data.pop(PREFETCHED_DIGEST, "")
        self._feed.restore(data)
        self._position = self._feed.position
        if restored.prefetched is not None:
            self._next_batch = self._feed.take()
            # If a question of it was changed since, its completions are decoded again.
            if not decoded or decoded == self._questions_digest(self._next_batch):
                with jax.set_mesh(self.mesh):
                    self._stage.load_prefetched(self.state, self._next_batch, restored.prefetched)
        return True

    def _open_logs(self, resumed: bool) -> None:
        """Opens the metrics and the progress bar."""
        self._announce()
        # A checkpoint holds a step before its held-out questions are answered: if a kill cut that short, it is redone.
        answered = resumed and self.step in examined(self.workdir)
        self._held_out_due = self._held_out.due(self.step) and not answered
        self._metrics = None
        if hosts.is_primary():
            start = self.step + 1 if resumed else 0
            self._metrics = Metrics(self.workdir, start, owed=self._held_out_due)
        # What a finished run returns again.
        self._row = (read_metrics(self.workdir) or [{}])[-1]
        self._bar = tqdm(
            total=self.run.steps,
            initial=self.start,
            desc=self.run.stage,
            file=sys.stderr,
            disable=None if hosts.is_primary() else True,
        )

    def advance(self) -> StepResult:
        """Makes one step. The metrics of its result are those of the run's log."""
        run, begun = self.run, time.perf_counter()
        # Until the step is made, a checkpoint goes on from here.
        self._resume_from = self._feed.state(self._position)
        batch = self._next_batch or self._feed.take()
        prefetches = run.stage == "grpo" and run.grpo.overlap and self.step + 1 < run.steps
        next_batch = self._feed.take() if prefetches else None
        waited = time.perf_counter() - begun
        sample = (self.step + 1) % run.samples_every == 0 or self.step == 0
        self._updating = True
        # Every transfer in a step is an explicit one; an accidental one fails loudly.
        with jax.transfer_guard("disallow"), jax.set_mesh(self.mesh):
            result = self._stage.step(
                self.state,
                batch,
                next_batch=next_batch,
                draw_batch=self._draw_batch,
                sample=sample,
            )
        self._updating = False
        self.state, self.step, self._next_batch = result.state, self.step + 1, next_batch
        self._feed.learn(result.indices[-run.batch_size :], result.pass_rates[-run.batch_size :])
        self._position = self._feed.position - (next_batch is not None)
        self._resume_from = None
        seconds = time.perf_counter() - begun
        self._last_batch = batch
        return result._replace(metrics=self._logged(result.metrics, waited, seconds))

    def _draw_batch(self, indices: list[int], pass_rates: list[float]) -> Batch:
        """Draws a further batch for the same step, after the order has learned from the last one."""
        self._feed.learn(indices, pass_rates)
        return self._feed.take()

    def _logged(self, metrics: dict[str, float], waited: float, seconds: float) -> dict[str, float]:
        """The metrics of the step that was just made, with the learning rate, times and totals."""
        run, metrics = self.run, dict(metrics)
        # An update that is skipped does not move the schedule on.
        updates = run.updates_per_step * (self.step - 1) - self.totals.skipped_total
        metrics["learning_rate"] = float(learning_rates(run.optimizer, run.updates)(updates))
        self.totals.add(metrics, run.updates_per_step)
        metrics |= {"seconds_data": waited, "seconds": seconds, **vars(self.totals)}
        metrics["records_skipped"] = len(self._feed.skipped)
        if peak := chip(jax.devices()[0].device_kind):
            flops = metrics["model_tflop"] * 1e12
            metrics["mfu"] = flops / seconds / jax.device_count() / peak[0]
        return metrics

    def log(self, result: StepResult) -> None:
        """Writes a step's metrics, questions and samples. Call it before `save_if_due` and `evaluate_if_due`.

        Raises:
            NotFinite: it is the last of `max_skipped` updates in a row that were not finite.
        """
        skipped, records = self._feed.fresh(), self._questions.records
        if self._metrics:
            asked = [records[index] for index in result.indices]
            self._metrics.write(self.step, result.metrics)
            self._metrics.ask(self.step, asked, result.pass_rates)
            self._metrics.sample(self.step, result.samples, records)
            self._metrics.skip(self.step, skipped)
        self._row = result.metrics
        shown = {name: f"{self._row[name]:.3f}" for name in SHOWN if name in self._row}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
        if self.totals.skipped_in_a_row >= self.run.max_skipped:
            raise NotFinite(self._not_finite())
        self._held_out_due = self._held_out.due(self.step)

    def call_back(self, callbacks: Sequence[Callback], result: StepResult) -> None:
        """Calls each callback with the step that was just logged, on the first host."""
        if not callbacks or not hosts.is_primary():
            return
        records = self._questions.records
        samples = tuple(
            sample_row(records[index], "train", completions)
            for index, completions in result.samples
        )
        event = StepEvent(step=self.step, metrics=result.metrics, samples=samples)
        for callback in callbacks:
            callback(event)

    def save_if_due(self) -> None:
        """Saves a checkpoint where one is due: by its interval, at the end, or before held-out questions."""
        due = self.step % self.run.checkpoint.every == 0 or self.step == self.run.steps
        if due or self._held_out_due:
            self._save()

    def evaluate_if_due(self, stop: Stop) -> None:
        """Answers the held-out questions where they are due, unless it is asked to stop before it has them all."""
        if not self._held_out_due:
            return
        with jax.transfer_guard("disallow"), jax.set_mesh(self.mesh):
            found = self._held_out(self.state, stop)
        if found is None:
            return
        if self._metrics:
            self._metrics.skip(self.step, found.skipped, "held_out")
            records = self._inputs.held_out.records
            self._metrics.sample(self.step, found.samples, records, "held_out")
            self._metrics.examine(self.step, found.scores)
        accuracy, rows = found.scores["accuracy"], found.scores["rows"]
        hosts.log(f"held out after step {self.step}: accuracy {accuracy:.3f} of {rows}")
        self._held_out_due = False

    def finish(self) -> dict[str, Any]:
        """Saves an unfinished run. Returns the last step's metrics, `step`, and whether the run is `finished`."""
        finished = self.step == self.run.steps and not self._held_out_due
        if not finished:
            self._save()
            self._checkpoints.wait()
            hosts.log(f"{self.run.stage}: asked to stop; {self._safe()}")
        return {**self._row, "step": self.step, "finished": finished}

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Closes the run, whatever ends it inside, and finishes what is being written.

        An InputError saves what was trained first. Another exception, such as a callback's, does not: the run goes on
        from its last checkpoint. On several hosts, a host that fails alone leaves at once, since the others would wait
        for it.
        """
        try:
            yield
        except (TooManyBad, NotFinite) as error:  # on every host at the same step
            try:
                self._save()
            finally:
                self._close()
            safe = f". {self._safe()}" if isinstance(error, TooManyBad) else ""
            hosts.raise_collectively(f"{error}{safe}")
        except BaseException as error:
            if not hosts.is_multihost():
                if isinstance(error, InputError):
                    with suppress(InputError):  # a full disk; `error` is what the user has to know
                        self._save()
                with suppress(InputError):
                    self._close()
            raise
        self._close()

    def _save(self) -> None:
        """Saves the state, if a step was made and no update that failed has donated it."""
        whole = not any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))
        if self.step > self.start and whole:
            data = self._resume_from or self._feed.state(self._position)
            # An update that was cut short has used what was decoded for it.
            prefetched = None if self._updating else self._stage.prefetched()
            if prefetched:
                data[PREFETCHED_DIGEST] = self._questions_digest(self._next_batch)
            # A copy: the checkpoint is written while the next step changes the totals.
            totals = dataclasses.asdict(self.totals)
            self._checkpoints.save(self.state, data, totals, prefetched)

    def _questions_digest(self, batch: Batch) -> str:
        """A digest of a batch's questions over all hosts, row by row, and of how often each was asked before."""
        indices, repeats = all_rows(self.mesh, (batch.indices, batch.repeats))
        rows = [
            f"{digest(self._questions.records[index])} {repeat}"
            for index, repeat in zip(indices.tolist(), repeats.tolist(), strict=True)
        ]
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]

    def _safe(self) -> str:
        if not self.step:
            return "nothing is trained yet, and the same command goes on from there"
        done = f"step {self.step} of {self.run.steps}"
        return f"{done} is safe in {self.workdir}, and the same command goes on from there"

    def _close(self) -> None:
        self._bar.close()
        self._feed.close()
        if self._metrics:
            self._metrics.close()
        try:
            self._checkpoints.wait()
        finally:
            self._checkpoints.close()

    def _announce(self) -> None:
        run, count = self.run, sum(record is not None for record in self._questions.records)
        trained, frozen = (
            sum(array.size for array in flat.values()) / 1e6
            for flat in (self.state.params, self._frozen)
        )
        hosts.log(
            f"{run.stage}: {count} records in {run.data.order} order, {trained:.2f}M parameters trained, {frozen:.2f}M"
            f" frozen, {jax.device_count()} {jax.devices()[0].platform} device(s)"
            + (f" on {jax.process_count()} hosts" if hosts.is_multihost() else "")
            + (f", resumed after step {self.start}" if self.start else "")
        )
        if run.data.keep_features_gb and hosts.is_multihost():
            hosts.log(
                f"{run.stage}: data.keep_features_gb is for one host; the tower runs in every step"
            )
        hosts.log(table(self.state.params))

    def _not_finite(self) -> str:
        indices = all_rows(self.mesh, self._last_batch.indices)
        ids = [self._questions.records[index].id for index in indices]
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        return (
            f"loss or gradient was not finite in {self.run.max_skipped} updates in a row, the last at step"
            f" {self.step}, whose batch was {', '.join(ids[:NAMED])}{more}; none of them changed the parameters. Look"
            " at these records, or lower optimizer.learning_rate, and start again in a new --workdir"
        )
