"""Prompts for a language model: one Jinja template per kind, which a folder of the user's may replace.

The SARI paper does not publish its prompts; these are ours.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sari_jax.errors import InputError

NAMES = ("question", "structured", "free", "caption")

# Sandboxed, as a prompt may come from elsewhere. The values filled in are text and never run as templates.
_JINJA = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


class Prompts:
    """The prompts by name.

    Args:
        folder: a folder whose question.txt, structured.txt, free.txt and caption.txt replace ours; it may lack some.

    Raises:
        InputError: the folder has none of them, or one that cannot be read or is not a template.
    """

    def __init__(self, folder: Path | str | None = None):
        ours = files("sari_jax.corpus.synthesize") / "prompts"
        self._templates = {name: _template(ours / f"{name}.txt") for name in NAMES}
        if folder is None:
            return
        found = [name for name in NAMES if (Path(folder) / f"{name}.txt").is_file()]
        if not found:
            raise InputError(f"{folder}: holds none of {', '.join(f'{n}.txt' for n in NAMES)}")
        self._templates |= {name: _template(Path(folder) / f"{name}.txt") for name in found}

    def render(self, name: str, **values: Any) -> str:
        """Returns a prompt with values filled in.

        Raises:
            InputError: the prompt uses a value that is not given.
        """
        try:
            return self._templates[name].render(**values).strip()
        except (TemplateError, TypeError, ValueError) as error:
            raise InputError(
                f"prompt {name}.txt: {error}; it may use {', '.join(values)}"
            ) from error


def _template(file: Any) -> Template:
    try:
        return _JINJA.from_string(file.read_text(encoding="utf-8"))
    except TemplateError as error:
        raise InputError(f"{file}: not a template ({error})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error
