"""What people see when their input cannot be used."""


class InputError(ValueError):
    """Bad input, told in one line: the value, the limit and the mend.

    The command line prints it and exits with 2; nothing is half-written when it is raised.
    """
