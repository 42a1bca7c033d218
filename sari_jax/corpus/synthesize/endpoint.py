"""One request to an OpenAI-compatible endpoint, through cache and budget.

The official client does what is the same for everybody: connections kept and shared by threads, and another attempt
after 408, 409, 429, 5xx, a timeout, or an answer that breaks off, later each time and when Retry-After says. Answers
are asked for whole, not as a stream, so that one that breaks off is asked for again and none is half-used. Here is what
is ours: which answers are final, what is kept, what is counted, and when to stop.
"""

import dataclasses
import json
import math
import threading
from typing import Any

from sari_jax.corpus.synthesize.budget import Budget
from sari_jax.corpus.synthesize.cache import Cache, Reply, Request
from sari_jax.data.ledger import Drop
from sari_jax.errors import InputError, require

LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
PATIENCE = 10  # requests that fail one after the other, each with all its attempts, before no more are sent
CHARACTERS = 4  # per token, where an endpoint does not count: an estimate of ours
LONGEST = 500  # characters of a message
MALFORMED = "reply is not a chat completion"
FAILED, FAILING = "request failed", "not reached: the endpoint fails"
SPENT = "not reached: spending limit"


class NoReply(Drop):
    """Raised where asking again is of no use."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Whom to ask and how.

    Attributes:
        url: what comes before /chat/completions.
        temperature, max_tokens: of each reply. Ours.
        length_field: what the endpoint calls `max_tokens`.
        timeout: seconds without a byte before an attempt is given up; a server's queue is part of it.
        retries: attempts after the first.
    """

    url: str
    model: str
    temperature: float = 0.7
    max_tokens: int = 1024
    length_field: str = LENGTH_FIELDS[0]
    timeout: float = 300.0
    retries: int = 6


class Endpoint:
    """Asks; may be shared by threads.

    Args:
        key: for the endpoint; None for one that wants none. Neither kept in the cache nor printed; space around it, as
            a file's last newline is, is taken off.

    Attributes:
        sent, cached, failed: requests answered by the endpoint, by the cache, and by nothing that is a reply.

    Raises:
        InputError: the client is not installed, the URL is none or holds a password, or the key can be none.
    """

    def __init__(self, settings: Settings, cache: Cache, budget: Budget, key: str | None = None):
        require("sari data synthesize", "corpus", "openai")
        import openai

        if "@" in settings.url:  # the address stands in messages
            raise InputError(
                "the endpoint's address must hold no user name, password or @; name it alone, and export a key in the"
                " variable that --api-key-env names"
            )
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError(
                "the endpoint's key holds a space, a control character or one beyond ASCII, and cannot be sent;"
                " export the right one in the variable that --api-key-env names"
            )
        if not settings.url.startswith(("http://", "https://")):
            raise InputError(f"endpoint {settings.url!r}: must start with http:// or https://")
        self.settings, self.cache, self.budget = settings, cache, budget
        self.sent = self.cached = self.failed = 0
        self._openai, self._lock = openai, threading.Lock()
        # As Python and JSON spell it too. The longest first, so that none leaves half of another.
        spellings = {key, repr(key)[1:-1], json.dumps(key)[1:-1]} - {""}
        self._spellings = sorted(spellings, key=len, reverse=True)
        self._failures, self._failure, self._refusal = 0, "", ""
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=key or "none",  # the client insists on one
            timeout=settings.timeout,
            max_retries=settings.retries,
        )

    def ask(self, prompt: str, seed: int) -> Reply:
        """The reply to one user message.

        Raises:
            NoReply: the limit is reached, the endpoint keeps failing, or this request does after all its attempts.
            Drop: what came is no reply; another seed may give one.
            InputError: the endpoint refuses the key, or does not know the path or the model.
        """
        settings = self.settings
        request: Request = {
            "model": settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": settings.temperature,
            settings.length_field: settings.max_tokens,
            "seed": seed,
        }
        if (reply := self.cache.get(request)) is not None:
            with self._lock:
                self.cached += 1
            return reply
        if self._refusal:  # heard by another thread
            raise InputError(self._refusal)
        if self.budget.exhausted:
            raise NoReply(SPENT)
        if self._failures >= PATIENCE:
            raise NoReply(FAILING, self._failure)
        reply = self._send(request, prompt)
        self.budget.spend(reply)
        self.cache.put(request, reply)
        return reply

    def check(self) -> None:
        """After the last request.

        Raises:
            InputError: there was never a reply.
        """
        if self._failure and not self.sent + self.cached:
            raise InputError(f"{self.settings.url}: no request was answered; {self._failure}")

    def _send(self, request: Request, prompt: str) -> Reply:
        openai = self._openai
        try:
            answer = self._client.chat.completions.create(**request)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            # Its message may repeat the key.
            self._refusal = (
                f"{self.settings.url}: refuses the key ({error.status_code});"
                " export the right one in the variable that --api-key-env names"
            )
            raise InputError(self._refusal) from None
        except openai.NotFoundError as error:
            self._refusal = (
                f"{self.settings.url}: not found (404: {self._told(error)});"
                f" mend --endpoint, which mostly ends in /v1, or --model {self.settings.model}"
            )
            raise InputError(self._refusal) from None
        except openai.APIResponseValidationError as error:
            raise self._fail(self._told(error), Drop, MALFORMED) from None
        except openai.APIStatusError as error:
            raise self._fail(f"{error.status_code}: {self._told(error)}") from None
        except openai.APITimeoutError:
            raise self._fail(f"no answer within {self.settings.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise self._fail(self._told(error.__cause__ or error)) from None
        except ValueError as error:  # not JSON
            raise self._fail(self._told(error), Drop, MALFORMED) from None
        usage = _usage(answer)
        try:
            reply = _read(answer, usage, prompt)
        except (AttributeError, TypeError, ValueError):
            if usage != (None, None):  # it is paid for all the same
                spent = Reply("", MALFORMED, *(count or 0 for count in usage))
                self.budget.spend(spent)
                self.cache.put_unusable(request, spent)
            raise self._fail(self._told(answer), Drop, MALFORMED) from None
        with self._lock:
            self.sent, self._failures = self.sent + 1, 0
        return reply

    def _fail(self, why: str, kind: type[Drop] = NoReply, reason: str = FAILED) -> Drop:
        with self._lock:
            self.failed, self._failures = self.failed + 1, self._failures + 1
            self._failure = f"{reason}: {why}"
        return kind(reason, why)

    def _told(self, what: object) -> str:
        """An error's message, or an answer's text, on one line, without the key and not too long."""
        text = " ".join(str(what).split()) or type(what).__name__
        for spelling in self._spellings:
            text = text.replace(spelling, "***")
        return text[:LONGEST]


def _usage(answer: Any) -> tuple[int | None, int | None]:
    """Tokens of prompt and reply, where the endpoint counts them."""
    told = getattr(answer, "usage", None)
    prompt, reply = (getattr(told, n, None) for n in ("prompt_tokens", "completion_tokens"))
    return _count(prompt), _count(reply)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _read(answer: Any, usage: tuple[int | None, int | None], prompt: str) -> Reply:
    """The client's object -> a reply. It is built without being checked, so that all of it may be missing.

    Args:
        usage: where it is None, tokens are estimated.

    Raises:
        AttributeError, TypeError, ValueError: it is no chat completion.
    """
    (choice,) = answer.choices
    text, finish = choice.message.content or "", choice.finish_reason or "stop"
    text = text.encode("utf-8", "replace").decode()  # half of a character cannot be written again
    counted = [
        math.ceil(len(said) / CHARACTERS) if count is None else count
        for count, said in zip(usage, (prompt, text), strict=True)
    ]
    return Reply(text, str(finish), *counted)
