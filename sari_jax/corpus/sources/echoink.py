"""EchoInk: questions about an image and its sound, made from OmniInstruct's AVQA part.

The form is that of the authors' script: a JSON list of objects with `problem_id`, `problem`, `options` ("A. rain"),
`solution` ("<answer>A</answer>") and `path` ({"image", "audio"}). The image is left out, so some questions have no
answer in the audio, and nothing in the form marks them. Questions about a colour are dropped, and "video" becomes
"audio".
"""

import re
from typing import Any

from sari_jax.corpus.sources import avqa
from sari_jax.corpus.sources.replies import answered
from sari_jax.corpus.sources.rows import BAD_FIELD, json_rows, text, texts
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop


def convert(row: dict[str, Any], context: Context) -> list[dict[str, Any]]:
    paths = row.get("path")
    if not isinstance(paths, dict):
        raise Drop(BAD_FIELD, "path must be an object with the clip's path in audio")
    options = [re.sub(r"^[A-Z][.)]\s*", "", option) for option in texts(row, "options")]
    return [
        answered(text(row, "solution"), options)
        | {"id": f"echoink-{text(row, 'problem_id')}", "audio": [{"path": text(paths, "audio")}]}
        | {"question": avqa.about_audio(text(row, "problem")), "task": "sound"}
    ]


SOURCE = Source(
    name="echoink",
    needs="omni_rl_format_train.json of EchoInk and, beside it or in --audio-root, the audio files that its path names",
    licence="not stated in EchoInk's form; questions and clips are AVQA's: " + avqa.LICENCE,
    read=json_rows,
    convert=convert,
)
