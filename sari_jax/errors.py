"""The error for input that cannot be used, and the lines that users read."""

import importlib.util


class InputError(ValueError):
    """Bad input, described in one line: the value, the limit and what to do.

    The command line prints the line and exits with 2. Nothing is half-written when the error is raised.
    """


def require(user: str, extra: str, *modules: str) -> None:
    """Checks that modules of an extra of setup.cfg are installed, without importing them.

    Args:
        user: the command that needs them.

    Raises:
        InputError: at least one is missing; the line names it and its extra.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{user} needs {', '.join(missing)}; {install(extra)}")


def install(extra: str) -> str:
    """Says how an extra is installed."""
    return f"pip install 'sari_jax[{extra}]', or in a checkout pip install -e '.[{extra}]'"


def one_line(text: str, longest: int = 1000) -> str:
    """Returns the text as one printable line.

    The middle of a text over `longest` is left out. A text that is not printable is escaped as Python does it.
    """
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 4 :]}"
    try:
        text.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        return repr(text)[1:-1]
    return text if text.isprintable() else repr(text)[1:-1]
