"""Messages with audio, as ms-swift and LLaMA-Factory read them, with ShareGPT's names too.

A row has one turn: the user's message, with a placeholder such as `<audio>` for each clip (see `placeholders`), and the
assistant's answer, or a `solution` as for GRPO. The question must contain the choices (see `replies`). These forms are
known from the trainers' documents:

    {"messages": [{"role": "user", "content": "<audio>..."}, {"role": "assistant", ...}], "audios": [path]}
    {"conversations": [{"from": "human", "value": "<audio>..."}, {"from": "gpt", ...}], "audios": [path]}
    {"query": "<audio>...", "response": "...", "audios": [path]}
    {"instruction": "...", "input": "<audio>", "output": "...", "audios": [path]}
    {"messages": [{"role": "user", "content": [{"type": "audio", "audio": path}, {"type": "text", ...}]}, ...]}
    {"query": "Audio 1: <audio>path</audio>...", "response": "..."}

Clips are paths, `file://` addresses, or objects with one of these in `path`, `url`, `audio` or `audio_url`. Audio on a
server or within the row is not fetched. The forms have no task; a row may have `task`, and is `sound` otherwise.
"""

from typing import Any
from urllib.parse import unquote, urlsplit

from sari_jax.corpus.sources.placeholders import OTHER_MEDIA, TAGS, marked, placed, refuse_tags
from sari_jax.corpus.sources.replies import answered, question_and_choices
from sari_jax.corpus.sources.rows import BAD_FIELD, json_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop

TURNS = "not one question and one answer"
NOT_HERE = "sound not on this disk"
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
FIELDS = ("audios", "audio", "audio_path", "audio_paths", "audio_url", "audio_urls", "audio_file")
# Fields that may name something else; they are read last.
LAST_FIELDS = ("wav", "path", "url")
# Keys of an object that name a clip.
PLACES = ("path", "url", "audio", "audio_url", "audio_path", "file")
MEDIA = ("images", "image", "videos", "video")
# Keys of audio within the row itself.
INSIDE = ("bytes", "array", "data", "input_audio")
SPAN = ("start", "end", "start_time", "end_time", "offset", "duration")


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
    """Returns the user's message without placeholders, the assistant's answer, and the clips' paths.

    Raises:
        Drop: the row is of another form, has several turns, or has more than audio and words.
    """
    if media := [name for name in MEDIA if row.get(name)]:
        raise Drop(OTHER_MEDIA, f"names {media[0]}")
    if row.get("history"):
        raise Drop(TURNS, "has a history of turns")
    turns = row.get("messages") or row.get("conversations") or row.get("conversation")
    if turns is None:
        prompt = text(row, "query", "instruction", "question", "prompt")
        inside = []
        more = row.get("input")
        prompt = f"{prompt}\n{more}" if isinstance(more, str) else prompt
        reply = text(row, "solution", "response", "output", "answer")
    else:
        said, inside = _said(turns)
        prompt = said["user"]
        reply = text(row, "solution") if row.get("solution") else said.get("assistant")
        if not reply:
            raise Drop(TURNS, "neither an answer of the assistant nor a solution")
    found = placed(prompt)
    refuse_tags(reply, "the answer")
    sounds = _sounds(row, inside, [_path(path) for path in found.paths])
    if found.sounds and found.sounds != len(sounds):
        raise Drop(TAGS, f"{found.sounds} <audio> tags for {len(sounds)} sounds")
    return found.text, reply, sounds


def _sounds(row: dict[str, Any], *inside: list[str]) -> list[str]:
    """Returns the paths of a row's fields or of its text; if both name clips, they must be the same."""

    def first(fields: tuple[str, ...]) -> list[str]:
        return next(filter(None, (_paths(row.get(name)) for name in fields)), [])

    given = [paths for paths in (first(FIELDS), *inside) if paths]
    given = given or [paths for paths in [first(LAST_FIELDS)] if paths]
    if not given:
        raise Drop(BAD_FIELD, "names no sound in audios")
    if any(paths != given[0] for paths in given):
        raise Drop(BAD_FIELD, "names its sounds in two places, and not the same ones")
    return given[0]


def _said(turns: Any) -> tuple[dict[str, str], list[str]]:
    """Returns the message of each role, and the paths of clips among the parts of messages."""
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
            content, paths = _parts(content)
            sounds += paths
        if not isinstance(content, str):
            raise Drop(BAD_FIELD, "content must be text")
        said[ROLES[role]] = content
    if "user" not in said:
        raise Drop(TURNS, "nothing said by the user")
    return said, sounds


def _parts(parts: list[Any]) -> tuple[str, list[str]]:
    """Joins a message's parts into one text; returns it and the clips' paths.

    A clip becomes a placeholder, unless the text has placeholders already.
    """
    pieces, paths, sounds = [], [], 0
    for part in parts:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, dict):
            raise Drop(BAD_FIELD, "content must be text, or a list of texts and sounds")
        kind = part.get("type") or next((name for name in ("text", "audio") if name in part), None)
        if kind == "text" and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        elif kind in ("audio", "audio_url", "input_audio"):
            sounds += 1
            pieces.append(None)
            if any(part.get(name) is not None for name in (*PLACES, *INSIDE)):
                paths.append(_path(part))
        elif kind in ("image", "image_url", "video", "video_url"):
            raise Drop(OTHER_MEDIA, f"a part of the message is of type {kind}")
        else:
            raise Drop(BAD_FIELD, f"a part of the message is of type {kind!r}")
    if paths and len(paths) != sounds:
        raise Drop(TAGS, f"{len(paths)} of {sounds} sounds in the message have a path")
    mark = "" if any(marked(piece) for piece in pieces if piece) else "<audio>"
    return "".join(mark if piece is None else piece for piece in pieces), paths


def _paths(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [_path(value) for value in values]


def _path(value: Any) -> str:
    """Returns a clip's path, from a text or an object.

    Raises:
        Drop: it is no path on this disk, or is only a span of a file.
    """
    if isinstance(value, dict):
        if any(value.get(name) is not None for name in SPAN):
            raise Drop(BAD_FIELD, "a span of a sound; cut it out, or write our own records")
        named = [value[name] for name in PLACES if value.get(name) is not None]
        if named:
            return _path(named[0])
        if any(value.get(name) for name in INSIDE):
            raise Drop(NOT_HERE, "the sound lies in the row itself; write it to a file")
    if not isinstance(value, str) or not value.strip():
        raise Drop(BAD_FIELD, "audios must be paths")
    if value.startswith("file:"):
        try:
            host, path = urlsplit(value)[1:3]
        except ValueError as error:
            raise Drop(BAD_FIELD, f"{value[:80]} is no address ({error})") from error
        value = unquote(path if host == "localhost" else host + path)
    elif value.startswith("data:") or "://" in value:
        raise Drop(NOT_HERE, f"{value[:80]} is no path; fetch it, and name its file")
    return value


SOURCE = Source(
    name="swift",
    needs="a JSON or JSONL file of messages with audios, and these sounds, from --audio-root where relative",
    licence="not stated in the form; name it with --licence",
    read=json_rows,
    convert=convert,
)
