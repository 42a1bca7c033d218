"""The inputs of a run: they are read and checked before weights are loaded and before anything is written."""

import dataclasses
import zlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sari_jax.data.processor import Processor
from sari_jax.errors import InputError
from sari_jax.hf.config import read_config
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.kernels import require
from sari_jax.parallel import hosts
from sari_jax.parallel.mesh import local_row_indices, make_mesh, shard_batch
from sari_jax.rl.rewards.functions import Functions, check_functions
from sari_jax.rl.rewards.registry import REWARDS, Scorer, make_scorer
from sari_jax.train.config import Run
from sari_jax.train.questions import Questions, read_held_out, read_questions
from sari_jax.train.workdir import claim, fingerprints, flat, refuse_changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """The checked inputs of a run.

    Attributes:
        settings: what config.json holds: the run's settings and fingerprints.
        compute_rewards: computes the rewards of a completion by name.
        held_out: the held-out questions; none if none are to be answered.
    """

    settings: dict[str, Any]
    config: AudioLMConfig
    processor: Processor
    compute_rewards: Scorer
    mesh: Mesh
    questions: Questions
    held_out: Questions


def read_inputs(run: Run, workdir: Path, rewards: Functions = MappingProxyType({})) -> Inputs:
    """Reads and checks the settings, the model's files, the data and the workdir. All hosts call this.

    Args:
        rewards: a function for each name of `grpo.reward_functions`.

    Raises:
        InputError: on every host the same: one of them cannot be used, or the hosts differ.
    """
    with hosts.raise_on_all_hosts():
        config = read_config(run.model.path, **run.model.network)
        processor = Processor(run.model.path, config)
        check_functions(rewards, run.grpo.reward_functions, taken=REWARDS)
        compute_rewards = make_scorer(run.reward_weights, run.grpo.reward_file, rewards)
        settings = {**dataclasses.asdict(run), "fingerprints": fingerprints(run, rewards)}
        refuse_changes(workdir, settings)
    hosts.assert_same_on_all_hosts({**flat(settings), **hosts.versions()})
    mesh = make_mesh(run.mesh.data, run.mesh.fsdp, run.mesh.tensor)
    require(config, num_shards=mesh.shape["tensor"], decoding=run.mesh.decode_tensor)
    _check_rows(run, mesh)
    return Inputs(
        settings=settings,
        config=config,
        processor=processor,
        compute_rewards=compute_rewards,
        mesh=mesh,
        questions=read_questions(run, workdir, processor),
        held_out=read_held_out(run, processor),
    )


def _check_rows(run: Run, mesh: Mesh) -> None:
    """Checks that the batch divides by the micro batches and by the mesh."""
    rows = len(local_row_indices(mesh, run.batch_size))
    with hosts.raise_on_all_hosts():
        if rows % run.micro_batches:
            raise InputError(
                f"config: micro_batches = {run.micro_batches} does not divide the {rows} rows of a host"
            )
    for part in np.split(np.zeros(rows, np.int32), run.micro_batches):
        shard_batch(mesh, part)


def claim_workdir(workdir: Path, inputs: Inputs) -> None:
    """Writes the settings and the roster from one host, and checks that all hosts see them. All hosts call this.

    Raises:
        InputError: on every host the same: the folder cannot be written, or the hosts do not share it.
    """
    roster = inputs.questions.roster
    checksum = zlib.crc32(repr(roster).encode(errors="replace"))
    hosts.assert_same_on_all_hosts({"questions": checksum})
    with hosts.raise_on_all_hosts():
        if hosts.is_primary():
            claim(workdir, inputs.settings, roster)
    with hosts.raise_on_all_hosts():
        if not (workdir / "config.json").exists():
            raise InputError(
                f"{workdir}: this host does not see what the first host writes there; name a --workdir that all"
                " hosts share"
            )
