"""A small OpenAI-compatible endpoint for tests: it writes what passes every check, or fails as it is told to."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What becomes of a request: "ok", a status, or one of "cut", "malformed", "empty", "two", "slow".
Fault = str | int


def good(prompt: str) -> str:
    """A reply that passes every check."""
    if right := re.search(r"find by ear, is: (.*)", prompt):
        end = f"So what I hear is {right[1]}."
        if '"planning"' not in prompt:
            return f"A sound starts and then fades. {end}"
        parts = {
            "planning": "I listen for the source.",
            "caption": "A sound starts.",
            "reasoning": "Its timbre settles it.",
            "summary": end,
        }
        return f"```json\n{json.dumps(parts)}\n```"
    caption = re.search(r"Content: (.*)|Heard in it: (.*)", prompt)
    answer = next(filter(None, caption.groups())).rstrip(".")
    question = {
        "question": "Which sound is heard?",
        "choices": ["a hooting owl", answer, "a humming fridge", "a rolling drum"],
        "answer": answer,
    }
    return json.dumps(question)


class ScriptedEndpoint:
    """Its address and what it was asked.

    Attributes:
        write: prompt -> reply.
        faults: what becomes of the first requests, one each; later ones are answered.
        pause: seconds before each answer.
        usage: whether tokens are counted in the answers.
        bodies, keys: of every request, those that fail too.
    """

    def __init__(self, url: str):
        self.url = url
        self.write: Callable[[str], str] = good
        self.faults: list[Fault] = []
        self.pause, self.usage, self.finish = 0.0, True, "stop"
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()

    def answer(self, prompt: str) -> dict:
        text = self.write(prompt)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        told = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        told |= {"choices": [choice]}
        if self.usage:
            told["usage"] = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        return told


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: ScriptedEndpoint

    def do_POST(self):
        endpoint = self.endpoint
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with endpoint.lock:
            fault = endpoint.faults[len(endpoint.bodies) :][:1] or ["ok"]
            endpoint.bodies.append(body)
            endpoint.keys.append(self.headers["Authorization"])
            endpoint.at_once += 1
            endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
        try:
            self._answer(fault[0], endpoint.answer(body["messages"][0]["content"]))
        finally:
            with endpoint.lock:
                endpoint.at_once -= 1

    def _answer(self, fault: Fault, told: dict) -> None:
        time.sleep(1.5 if fault == "slow" else self.endpoint.pause)
        status = fault if isinstance(fault, int) else 200
        if status != 200:
            said = told["choices"][0]["message"]["content"]
            message = f"status {status} for {self.headers['Authorization']}, not {said}"
            told = {"error": {"message": message}}
        if fault == "empty":
            told = {}
        if fault == "two":
            told = told | {"choices": 2 * told["choices"], "id": self.headers["Authorization"]}
        data = json.dumps(told).encode()
        if fault == "malformed":
            data = data[: len(data) // 2]
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "1")
        elif status >= 500:
            self.send_header("Retry-After-Ms", "10")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
        self.wfile.flush()
        if fault == "cut":
            self.close_connection = True

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that gave up are part of the tests."""


@contextmanager
def serving() -> Iterator[ScriptedEndpoint]:
    server = _Server(("127.0.0.1", 0), type("Answering", (_Answering,), {}))
    endpoint = ScriptedEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1")
    server.RequestHandlerClass.endpoint = endpoint
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
