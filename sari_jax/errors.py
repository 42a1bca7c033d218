"""What people see when their input cannot be used."""


class InputError(ValueError):
    """Bad input, told in one line: the value, the limit and the mend.

    The command line prints it and exits with 2; nothing is half-written when it is raised.
    """


def one_line(text: str, longest: int = 1000) -> str:
    """Text as it stands, or spelt out where it would break the line or could not be written; its middle left out
    where it is very long.
    """
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 4 :]}"
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character
        return repr(text)[1:-1]
    return text if text.isprintable() else repr(text)[1:-1]
