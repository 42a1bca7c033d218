"""The loop that serves both stages."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from sari_jax.hf.config import read_config
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.parallel import hosts
from sari_jax.programs import counted
from sari_jax.rl.rewards.functions import Functions
from sari_jax.train.callbacks import Callback
from sari_jax.train.checkpoint import Checkpoints
from sari_jax.train.config import Run
from sari_jax.train.inputs import read_inputs
from sari_jax.train.optimizer import merge
from sari_jax.train.parameters import shapes_of
from sari_jax.train.preemption import Stop
from sari_jax.train.trainer import Trainer


def never() -> bool:
    """A run that is never asked to stop."""
    return False


def train(
    run: Run,
    workdir: Path | str,
    stop: Stop = never,
    *,
    rewards: Functions = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Runs or resumes a run to its last step, and logs how many programs that took.

    On several hosts all of them call it; the first one writes metrics and samples.

    Args:
        stop: asked before every step and every held-out batch, whether to end there. It must answer the same on all
            hosts.
        rewards: a function for each name of `grpo.reward_functions`.
        callbacks: each is called after every step, in the main thread of the first host. An exception in one ends the
            run; the same call goes on from the last checkpoint.

    Returns:
        The last step's metrics, `step`, and whether the run is `finished`.

    Raises:
        InputError: settings, model directory, data or workdir that cannot be used. Nothing is written before all of
            them are read and every record is checked. A run also ends so if more than `data.max_bad_fraction` of the
            records turn out unusable later, or if `max_skipped` updates in a row were not finite. What was trained by
            then is saved.
    """
    with counted() as programs:
        inputs = read_inputs(run, Path(workdir), rewards)
        trainer = Trainer(run, inputs, Path(workdir))
        with trainer.closing():
            trainer.evaluate_if_due(stop)
            while trainer.step < run.steps and not stop():
                with jax.profiler.StepTraceAnnotation("train", step_num=trainer.step + 1):
                    result = trainer.advance()
                trainer.log(result)
                trainer.call_back(callbacks, result)
                trainer.save_if_due()
                trainer.evaluate_if_due(stop)
            summary = trainer.finish()
    hosts.log(f"{run.stage}: {programs}")
    return summary


def trained_params(
    run: Run, workdir: Path | str, step: int | None = None
) -> tuple[AudioLMConfig, Params]:
    """(config, parameters) of a run's checkpoint: what it trained, and nothing else."""
    config = read_config(run.model.path, **run.model.network)
    abstract, _ = shapes_of(run.model, config)
    checkpoints = Checkpoints(workdir, keep=run.checkpoint.keep)
    trained = checkpoints.params(abstract, step)
    checkpoints.close()
    return config, merge(trained, {})
