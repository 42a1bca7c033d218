"""Recipes: the config files that come with the package, found by name or by path.

`--config grpo:qwen2_audio_7b,lora` and `--config configs/grpo.py:qwen2_audio_7b,lora` are the same config: what follows
the colon is the argument of the file's `get_config`. `grpo:nano` is the file grpo_nano.py.
"""

from collections.abc import Iterable
from pathlib import Path

from sari_jax.errors import InputError

# A wheel holds the files here. In a checkout this is a link to the folder `configs`.
FOLDER = Path(__file__).parent.parent / "configs"


def recipes() -> dict[str, Path]:
    """Returns the files of all recipes by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.py"))}


def find_config(config: str) -> tuple[Path, str]:
    """Returns the file that `--config` names, and the argument for its `get_config`, "" if there is none.

    Args:
        config: NAME of a recipe, or PATH of a file; either may be followed by `:ARGUMENT`.

    Raises:
        InputError: neither a recipe nor a file; all recipes are named.
    """
    name, _, argument = config.partition(":")
    known = recipes()
    # `grpo:nano` is a file of its own; `grpo:qwen2_audio_7b` is an argument of grpo.py.
    if f"{name}_{argument}" in known:
        return known[f"{name}_{argument}"], ""
    if name in known:
        return known[name], argument
    if Path(config).is_file():
        return Path(config), ""
    if Path(name).is_file():
        return Path(name), argument
    raise InputError(
        f"{name}: no such config file or recipe; give a .py or .json file, or one of {', '.join(known)}"
    )


def parse_variant(argument: str, recipe: str, models: Iterable[str]) -> tuple[str, bool]:
    """Returns the model that a recipe's argument names, and whether it asks for adapters.

    Args:
        argument: MODEL or MODEL,lora.
        recipe: the name of the recipe, for the message.
        models: the models that the recipe knows.

    Raises:
        InputError: an unknown argument; all that there are, files of the same name among them, are named.
    """
    models = list(models)
    model, comma, rest = argument.partition(",")
    if model in models and (comma, rest) in (("", ""), (",", "lora")):
        return model, rest == "lora"
    wrong = f"{recipe}:{argument} is unknown" if argument else f"{recipe} needs a model"
    files = [
        f"{recipe}:{name.removeprefix(f'{recipe}_')}"
        for name in recipes()
        if name.startswith(f"{recipe}_")
    ]
    raise InputError(
        f"config: {wrong}; choose {recipe}:MODEL or {recipe}:MODEL,lora with MODEL one of {', '.join(models)};"
        f" or {', '.join(files)}"
    )
