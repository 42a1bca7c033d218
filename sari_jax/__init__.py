"""Post-training for audio-language models in JAX.

    import sari_jax as sari

    model = sari.load("Qwen2-Audio-7B-Instruct", dtype="bfloat16")
    model.ask("my_clip.wav", "Which animal is it?", choices=("cat", "dog")).answer

Here my_clip.wav is a clip of yours. docs/api.md explains every name. Importing this package imports neither JAX nor
anything else of it, and touches no device: a name is loaded when it is first used.
"""

import importlib
import inspect
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sari_jax.api import advantages, losses, rewards
    from sari_jax.api.building import assemble_model, starter_corpus
    from sari_jax.api.evaluation import compare, evaluate, score
    from sari_jax.api.exporting import Exported, export
    from sari_jax.api.model import Answer, Model, Question, load
    from sari_jax.api.reporting import read_metrics, read_samples, report
    from sari_jax.api.training import config, distributed, train
    from sari_jax.data.records import Clip, Record, read_records
    from sari_jax.errors import InputError
    from sari_jax.train.callbacks import StepEvent
    from sari_jax.train.config import Run

__all__ = [
    "Answer",
    "Clip",
    "Exported",
    "InputError",
    "Model",
    "Question",
    "Record",
    "Run",
    "StepEvent",
    "advantages",
    "assemble_model",
    "compare",
    "config",
    "distributed",
    "evaluate",
    "export",
    "load",
    "losses",
    "read_metrics",
    "read_records",
    "read_samples",
    "report",
    "rewards",
    "score",
    "starter_corpus",
    "train",
]
# Each public name and the module that defines it.
_SOURCES = {
    "Answer": "sari_jax.api.model",
    "Clip": "sari_jax.data.records",
    "Exported": "sari_jax.api.exporting",
    "InputError": "sari_jax.errors",
    "Model": "sari_jax.api.model",
    "Question": "sari_jax.api.model",
    "Record": "sari_jax.data.records",
    "Run": "sari_jax.train.config",
    "StepEvent": "sari_jax.train.callbacks",
    "assemble_model": "sari_jax.api.building",
    "compare": "sari_jax.api.evaluation",
    "config": "sari_jax.api.training",
    "distributed": "sari_jax.api.training",
    "export": "sari_jax.api.exporting",
    "load": "sari_jax.api.model",
    "read_metrics": "sari_jax.api.reporting",
    "read_records": "sari_jax.data.records",
    "read_samples": "sari_jax.api.reporting",
    "score": "sari_jax.api.evaluation",
    "starter_corpus": "sari_jax.api.building",
}
# Public modules.
_MODULES = ("advantages", "losses", "rewards")
# Public functions that have the name of a subpackage: the subpackage is that function, too.
_CALLED = {
    "evaluate": "sari_jax.api.evaluation",
    "report": "sari_jax.api.reporting",
    "train": "sari_jax.api.training",
}


def __getattr__(name: str) -> Any:
    if name in _SOURCES:
        value = getattr(importlib.import_module(_SOURCES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"sari_jax.api.{name}")
    elif name in _CALLED:
        return importlib.import_module(f"sari_jax.{name}")
    else:
        raise AttributeError(f"module 'sari_jax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _CalledPackage(types.ModuleType):
    """A subpackage that is also the public function of its name: `sari.train(...)` beside `sari_jax.train.loop`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_CALLED[name]), name)

    @property
    def __doc__(self) -> str | None:  # what help() and a notebook show
        return self._function.__doc__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


class _Package(types.ModuleType):
    """This package. Python sets a subpackage as its attribute when the subpackage is first imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED and isinstance(value, types.ModuleType):
            value.__class__ = _CalledPackage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
