"""The completion that a reward judges."""


class Completion(str):
    """A completion's text, which knows how long it was in tokens.

    >>> completion = Completion("<answer>dog</answer>", num_tokens=7, limit=48)
    >>> completion.startswith("<answer>"), completion.num_tokens, completion.limit
    (True, 7, 48)

    Attributes:
        num_tokens: the number of its tokens, the end token included.
        limit: the largest number of tokens that it could have.
    """

    num_tokens: int
    limit: int

    def __new__(cls, text: str, num_tokens: int, limit: int) -> "Completion":
        made = super().__new__(cls, text)
        made.num_tokens = num_tokens
        made.limit = limit
        return made
