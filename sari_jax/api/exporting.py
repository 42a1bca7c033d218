"""A run's model out as a Hugging Face directory."""

import dataclasses
from pathlib import Path

from sari_jax.hf.adapter import export_adapter
from sari_jax.hf.config import read_family
from sari_jax.hf.export import export as export_model
from sari_jax.train.loop import trained_params
from sari_jax.train.workdir import read_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A directory that was written.

    Attributes:
        directory: where it is.
        base_model: the model directory that the run started from.
        is_adapter: whether it holds the adapter alone, for PEFT.
        opened_by: the class of transformers that opens the model, or the base model of the adapter.
    """

    directory: Path
    base_model: Path
    is_adapter: bool
    opened_by: str


def export(
    workdir: Path | str,
    out: Path | str,
    *,
    step: int | None = None,
    model: Path | str | None = None,
    adapter: bool = False,
) -> Exported:
    """Writes a run's model as a Hugging Face directory, or its adapter as a PEFT directory.

    Args:
        workdir: of the run.
        out: the new directory. A folder that is not empty is refused.
        step: which checkpoint; None for the newest.
        model: where the run's model directory is now, if it has moved.
        adapter: write the adapter alone.

    Raises:
        InputError: not a run's workdir, no such checkpoint, another model in its directory, or an `out`
            that is not empty.
    """
    run = read_run(Path(workdir), model)
    config, params = trained_params(run, Path(workdir), step)
    base_model = Path(run.model.path)
    if adapter:
        if config.adapter:  # with its dropout, of which the network knows nothing
            config = dataclasses.replace(config, adapter=run.model.adapter)
        export_adapter(params, config, base_model, Path(out))
    else:
        export_model(params, config, base_model, Path(out))
    return Exported(
        directory=Path(out),
        base_model=base_model,
        is_adapter=adapter,
        opened_by=read_family(base_model).reference,
    )
