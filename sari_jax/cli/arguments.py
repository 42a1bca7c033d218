"""The parts that commands share: declaring options and printing results."""

import argparse
import copy
import json
import sys
from collections.abc import Callable
from typing import Any

Run = Callable[[argparse.Namespace], int]
# The result of argparse's add_subparsers, whose class has no public name.
Commands = Any


class WithDefaults(argparse.HelpFormatter):
    """Help with every default: argparse's own formatter for it leaves out options without a text."""

    def add_argument(self, action: argparse.Action) -> None:
        default = action.default
        if action.option_strings and type(default) in (int, float, str):
            if default is not argparse.SUPPRESS:
                action = copy.copy(action)
                action.help = f"{action.help or ''} (default: {default})".strip()
        super().add_argument(action)


def command(
    parent: Commands, name: str, run: Run, help: str, *required: str
) -> argparse.ArgumentParser:
    """Adds a command under `parent`, with --json and the options that it requires."""
    sub = parent.add_parser(name, help=help, description=help, formatter_class=WithDefaults)
    sub.set_defaults(run=run)
    sub.add_argument("--json", action="store_true", help="one JSON object on standard output")
    for option in required:
        sub.add_argument(option, required=True)
    return sub


def group(commands: Commands, name: str, help: str) -> Commands:
    """Adds a word with commands under it: `sari data build`."""
    return commands.add_parser(name, help=help).add_subparsers(required=True, metavar="COMMAND")


def generation(sub: argparse.ArgumentParser, *, temperature: float) -> None:
    """Adds the options of a command that lets a model answer."""
    sub.add_argument(
        "--style", default="structured", help="how to answer: structured, free or direct"
    )
    sub.add_argument("--temperature", type=float, default=temperature)
    longest = (
        "tokens of a completion, at most (default: 256 for direct answers, 512 with reasoning)"
    )
    sub.add_argument("--max-tokens", type=at_least(1), help=longest)
    sub.add_argument("--seed", type=at_least(0), default=0)
    dtypes = ("float32", "bfloat16")
    sub.add_argument("--dtype", choices=dtypes, default=dtypes[0], help="dtype of activations")


def overrides(sub: argparse.ArgumentParser) -> None:
    """Lets a command take the settings of its config as options."""
    sub.set_defaults(takes_overrides=True)
    sub.epilog = (
        "--config takes a file, or a recipe by name: grpo:nano, sft:qwen2_audio_7b,lora."
        " --config.KEY=VALUE changes a setting of the config, as in --config.optimizer.learning_rate=1e-5."
        " docs/settings.md lists them all."
    )


def rows(sub: argparse.ArgumentParser) -> None:
    """Adds the size of a batch."""
    sub.add_argument("--rows", type=at_least(1), default=8, help="prompts per batch")


def at_least(least: int) -> Callable[[str], int]:
    """Returns the type of an option that is a whole number with a lower limit."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} must be at least {least}")
        return int(text)

    return number


def print_result(args: argparse.Namespace, result: dict[str, Any], text: str | None = None) -> None:
    """Prints a result: one line of JSON with --json, else the text if there is one."""
    if args.json:
        print(json.dumps(result))
        return
    shown = text or json.dumps(result, indent=2, ensure_ascii=False)
    # An unpaired surrogate cannot be encoded.
    encoding = sys.stdout.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding))


def fraction(text: str) -> float:
    """Reads an option from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to 1")
    return float(text)
