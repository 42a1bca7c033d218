"""What a reward judges."""


class Completion(str):
    """A completion's text, which knows how long it was in tokens.

    Attributes:
        tokens: its length, the end token included.
        limit: the most tokens it could have had.
    """

    tokens: int
    limit: int

    def __new__(cls, text: str, tokens: int, limit: int) -> "Completion":
        made = super().__new__(cls, text)
        made.tokens, made.limit = tokens, limit
        return made
