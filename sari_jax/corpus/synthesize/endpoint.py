"""Requests to an OpenAI-compatible endpoint, with a cache and a budget.

The official client keeps connections, shares them between threads, and repeats a request after 408, 409, 429, 5xx, a
timeout or an answer that breaks off. It waits longer each time, or as long as Retry-After says. Answers are not
streamed, so an answer that breaks off is requested again as a whole. This module decides which answers are final,
what is cached, what is counted, and when to stop.
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
# After this many failed requests in a row, each with all its attempts, no more are sent.
PATIENCE = 10
# Characters per token, our estimate for endpoints that do not count tokens.
CHARACTERS = 4
# Characters of a message.
LONGEST = 500
MALFORMED = "reply is not a chat completion"
FAILED, FAILING = "request failed", "not reached: the endpoint fails"
SPENT = "not reached: spending limit"


class NoReply(Drop):
    """Raised where another request is of no use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The endpoint's address and the settings of each request.

    Attributes:
        url: the address before /chat/completions.
        temperature, max_tokens: settings of each reply; the defaults are ours.
        length_field: the endpoint's name for `max_tokens`.
        timeout: seconds without a byte before an attempt is given up; waiting in a server's queue counts.
        retries: the number of attempts after the first.
    """

    url: str
    model: str
    temperature: float = 0.7
    max_tokens: int = 1024
    length_field: str = LENGTH_FIELDS[0]
    timeout: float = 300.0
    retries: int = 6


class Endpoint:
    """An endpoint that answers prompts. Threads may share it.

    Args:
        key: the endpoint's key; None if it needs none. It is neither cached nor printed. Space around it, such as a
            file's last newline, is removed.

    Attributes:
        sent: the number of requests that the endpoint answered.
        cached: the number of requests that the cache answered.
        failed: the number of requests without a reply.

    Raises:
        InputError: the client is not installed, the URL is not one or contains a password, or the key is not valid.
    """

    def __init__(self, settings: Settings, cache: Cache, budget: Budget, key: str | None = None):
        require("sari data synthesize", "corpus", "openai")
        import openai

        if "@" in settings.url:  # messages show the address
            raise InputError(
                "the endpoint's address must contain no user name, password or @; give the address alone, and export a"
                " key in the variable that --api-key-env names"
            )
        key = (key or "").strip()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError(
                "the endpoint's key contains a space, a control character or one beyond ASCII, and cannot be sent;"
                " export the right one in the variable that --api-key-env names"
            )
        if not settings.url.startswith(("http://", "https://")):
            raise InputError(f"endpoint {settings.url!r}: must start with http:// or https://")
        self.settings = settings
        self.cache = cache
        self.budget = budget
        self.sent = 0
        self.cached = 0
        self.failed = 0
        self._openai = openai
        self._lock = threading.Lock()
        # The key as Python and JSON escape it too. The longest first, so that none leaves half of another.
        spellings = {key, repr(key)[1:-1], json.dumps(key)[1:-1]} - {""}
        self._spellings = sorted(spellings, key=len, reverse=True)
        self._failures = 0  # in a row
        self._failure = ""  # the last one
        self._refusal = ""
        self._client = openai.OpenAI(
            base_url=settings.url,
            api_key=key or "none",  # the client insists on one
            timeout=settings.timeout,
            max_retries=settings.retries,
        )

    def ask(self, prompt: str, seed: int) -> Reply:
        """Returns the reply to one user message.

        Raises:
            NoReply: the spending limit is reached, the endpoint keeps failing, or all attempts of this request failed.
            Drop: the answer is not a chat completion; another seed may give one.
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
        if self._refusal:  # another thread was refused
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
        """Checks, after the last request, that there was any reply.

        Raises:
            InputError: there was none.
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
                f"{self.settings.url}: not found (404: {self._line(error)});"
                f" correct --endpoint, which mostly ends in /v1, or --model {self.settings.model}"
            )
            raise InputError(self._refusal) from None
        except openai.APIResponseValidationError as error:
            raise self._fail(self._line(error), Drop, MALFORMED) from None
        except openai.APIStatusError as error:
            raise self._fail(f"{error.status_code}: {self._line(error)}") from None
        except openai.APITimeoutError:
            raise self._fail(f"no answer within {self.settings.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise self._fail(self._line(error.__cause__ or error)) from None
        except ValueError as error:  # not JSON
            raise self._fail(self._line(error), Drop, MALFORMED) from None
        usage = _usage(answer)
        try:
            reply = _read(answer, usage, prompt)
        except (AttributeError, TypeError, ValueError):
            if usage != (None, None):  # it costs money nevertheless
                spent = Reply(
                    text="",
                    finish=MALFORMED,
                    prompt_tokens=usage[0] or 0,
                    completion_tokens=usage[1] or 0,
                )
                self.budget.spend(spent)
                self.cache.put_unusable(request, spent)
            raise self._fail(self._line(answer), Drop, MALFORMED) from None
        with self._lock:
            self.sent += 1
            self._failures = 0
        return reply

    def _fail(self, why: str, kind: type[Drop] = NoReply, reason: str = FAILED) -> Drop:
        with self._lock:
            self.failed += 1
            self._failures += 1
            self._failure = f"{reason}: {why}"
        return kind(reason, why)

    def _line(self, what: object) -> str:
        """Returns an error's message or an answer's text on one line, shortened and with *** for the key."""
        text = " ".join(str(what).split()) or type(what).__name__
        for spelling in self._spellings:
            text = text.replace(spelling, "***")
        return text[:LONGEST]


def _usage(answer: Any) -> tuple[int | None, int | None]:
    """Returns the tokens of prompt and reply; None for one that the endpoint does not count."""
    usage = getattr(answer, "usage", None)
    prompt = getattr(usage, "prompt_tokens", None)
    reply = getattr(usage, "completion_tokens", None)
    return _count(prompt), _count(reply)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _read(answer: Any, usage: tuple[int | None, int | None], prompt: str) -> Reply:
    """Makes a reply from the client's object, which is not validated: any of its attributes may be missing.

    Args:
        usage: tokens of prompt and reply; one that is None is estimated.

    Raises:
        AttributeError, TypeError, ValueError: the object is no chat completion.
    """
    (choice,) = answer.choices
    finish = choice.finish_reason or "stop"
    text = choice.message.content or ""
    text = text.encode("utf-8", "replace").decode()  # an unpaired surrogate cannot be written
    prompt_tokens, completion_tokens = usage
    return Reply(
        text=text,
        finish=str(finish),
        prompt_tokens=_estimate(prompt) if prompt_tokens is None else prompt_tokens,
        completion_tokens=_estimate(text) if completion_tokens is None else completion_tokens,
    )


def _estimate(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS)
