"""Messages with sounds, as ms-swift and LLaMA-Factory read them, ShareGPT's names included.

One turn: what the user says, with a mark such as `<audio>` for each sound (see `placeholders`), and what the assistant
answers, or a `solution` as for GRPO. The choices must be written into the question (see `replies`). Known forms, from
the trainers' documents:

    {"messages": [{"role": "user", "content": "<audio>..."}, {"role": "assistant", ...}], "audios": [path]}
    {"conversations": [{"from": "human", "value": "<audio>..."}, {"from": "gpt", ...}], "audios": [path]}
    {"query": "<audio>...", "response": "...", "audios": [path]}
    {"instruction": "...", "input": "<audio>", "output": "...", "audios": [path]}
    {"messages": [{"role": "user", "content": [{"type": "audio", "audio": path}, {"type": "text", ...}]}, ...]}
    {"query": "Audio 1: <audio>path</audio>...", "response": "..."}

Sounds are paths, `file://` addresses, or objects with one under `path`, `url`, `audio` or `audio_url`. What lies on a
server or within the row is not fetched. The forms know no task; a row may name one in `task`, and is sound otherwise.
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
LAST_FIELDS = ("wav", "path", "url")  # which may be of something else
PLACES = ("path", "url", "audio", "audio_url", "audio_path", "file")  # within an object
MEDIA = ("images", "image", "videos", "video")
INSIDE = ("bytes", "array", "data", "input_audio")  # a sound in the row itself
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
    """What is said, without the sounds' marks, what is answered, and the sounds' paths.

    Raises:
        Drop: a row of another form, of several turns, or with more than sounds and words.
    """
    if media := [name for name in MEDIA if row.get(name)]:
        raise Drop(OTHER_MEDIA, f"names {media[0]}")
    if row.get("history"):
        raise Drop(TURNS, "a history of turns before it")
    turns = row.get("messages") or row.get("conversations") or row.get("conversation")
    if turns is None:
        prompt, inside = text(row, "query", "instruction", "question", "prompt"), []
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
    """The sounds of a row's fields or of its text, which must not name others."""

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
    """What each role says, and the paths of the sounds among the user's parts."""
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
    """A message's parts as one text, with a mark for each sound where the text has none of its own; and their paths."""
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
    """A sound's path, by its name or an object with one.

    Raises:
        Drop: it names none on this disk, or only a part of one.
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
