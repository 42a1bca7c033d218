"""Messages with sounds, as ms-swift and LLaMA-Factory read them, ShareGPT's names included.

One turn: what the user says, with `<audio>` for each of the `audios`, and what the assistant answers, or a `solution`
as for GRPO. The choices must be written into the question (see `replies`). Known forms, from the trainers' documents:

    {"messages": [{"role": "user", "content": "<audio>..."}, {"role": "assistant", ...}], "audios": [path]}
    {"conversations": [{"from": "human", "value": "<audio>..."}, {"from": "gpt", ...}], "audios": [path]}
    {"query": "<audio>...", "response": "...", "audios": [path]}
    {"instruction": "...", "input": "<audio>", "output": "...", "audios": [path]}

The forms know no task; a row may name one in `task`, and is sound otherwise.
"""

from typing import Any

from sari_jax.data.ledger import Drop
from sari_jax.data.sources.replies import answered, question_and_choices
from sari_jax.data.sources.rows import BAD_FIELD, json_rows, text
from sari_jax.data.sources.source import Context, Source

TURNS = "not one question and one answer"
TAGS = "audio tags and sounds differ in number"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    prompt, reply, sounds = turn(row)
    question, choices = question_and_choices(prompt)
    name = text(row, "id") if row.get("id") is not None else f"{context.name}-{sounds[0]}"
    return [
        answered(reply, choices)
        | {"id": f"swift-{name}", "audio": [{"path": path} for path in sounds]}
        | {"question": question, "task": text(row, "task") if "task" in row else "sound"}
    ]


def turn(row: dict[str, Any]) -> tuple[str, str, list[str]]:
    """What is said, what is answered, and the sounds' paths.

    Raises:
        Drop: a row of another form, or of several turns.
    """
    named = (_paths(row.get(name)) for name in ("audios", "audio", "audio_path"))
    sounds = next(filter(None, named), [])
    turns = row.get("messages") or row.get("conversations")
    if turns is None:
        prompt = text(row, "query", "instruction", "question", "prompt")
        more = row.get("input")
        prompt = f"{prompt}\n{more}" if isinstance(more, str) else prompt
        reply = text(row, "solution", "response", "output", "answer")
    else:
        said, inside = _said(turns)
        sounds = sounds or inside
        prompt = said["user"]
        reply = text(row, "solution") if row.get("solution") else said.get("assistant")
        if not reply:
            raise Drop(TURNS, "neither an answer of the assistant nor a solution")
    tags = prompt.count("<audio>")
    if not sounds:
        raise Drop(BAD_FIELD, "names no sound in audios")
    if tags and tags != len(sounds):
        raise Drop(TAGS, f"{tags} <audio> tags for {len(sounds)} sounds")
    return prompt.replace("<audio>", "").strip(), reply, sounds


def _said(turns: Any) -> tuple[dict[str, str], list[str]]:
    said, sounds = {}, []
    if not isinstance(turns, list) or not all(isinstance(each, dict) for each in turns):
        raise Drop(BAD_FIELD, "messages must be a list of objects")
    for each in turns:
        role = each.get("role", each.get("from"))
        if role == "system":
            continue
        if not isinstance(role, str) or role not in ROLES or ROLES[role] in said:
            raise Drop(TURNS, f"a second turn, or a role {role!r}")
        content = each.get("content", each.get("value"))
        if isinstance(content, list):  # parts, as chat templates take them
            parts = [part for part in content if isinstance(part, dict)]
            sounds += [path for part in parts for path in _paths(part.get("audio"))]
            content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        if not isinstance(content, str):
            raise Drop(BAD_FIELD, "content must be text")
        said[ROLES[role]] = content
    if "user" not in said:
        raise Drop(TURNS, "nothing said by the user")
    return said, sounds


def _paths(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(path, str) and path for path in values):
        raise Drop(BAD_FIELD, "audios must be paths")
    return values


SOURCE = Source(
    name="swift",
    needs="a JSON or JSONL file of messages with audios, and these sounds, from --audio-root where relative",
    licence="not stated in the form; name it with --licence",
    read=json_rows,
    convert=convert,
)
