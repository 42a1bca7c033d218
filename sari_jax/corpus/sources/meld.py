"""MELD: utterances of the series Friends with their emotion and sentiment (Poria et al. 2019).

The files are those of its repository: train_sent_emo.csv and the like, with `Utterance`, `Speaker`, `Emotion`,
`Sentiment`, `Dialogue_ID` and `Utterance_ID`, and a clip diaN_uttM for each row. The clips are published as MP4; the
user extracts their audio. The test split has some clips twice, and users report that final_videos_testdiaN_uttM is the
right one, so that name is tried first for the test split.

A row gives labels, whose caption a model has still to write, and two questions by rule: one about four emotions, one
about the three sentiments. Ids contain the file's name, so that the ids of splits differ.
"""

from typing import Any

from sari_jax.corpus.sources.choices import mixed
from sari_jax.corpus.sources.rows import BAD_FIELD, clip, csv_rows, text
from sari_jax.corpus.sources.source import Context, Source
from sari_jax.data.ledger import Drop

EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
SENTIMENTS = ("negative", "neutral", "positive")
COLUMNS = ("Utterance", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
# Its CSVs contain Windows' quotes and dashes as control characters.
_MENDED = {i: bytes([i]).decode("cp1252", "ignore") for i in range(0x80, 0xA0)}


def convert(row: dict[str, str], context: Context) -> list[dict[str, Any]]:
    clip_name = f"dia{text(row, 'Dialogue_ID')}_utt{text(row, 'Utterance_ID')}"
    name = f"meld-{context.name}-{clip_name}"
    stems = [f"final_videos_test{clip_name}", clip_name] if "test" in context.name else [clip_name]
    same = {"audio": clip(context.root, *stems), "task": "speech"}
    emotion = _one_of(row, "Emotion", EMOTIONS)
    sentiment = _one_of(row, "Sentiment", SENTIMENTS)
    said = text(row, "Utterance").translate(_MENDED)
    labels = [f"emotion: {emotion}", f"sentiment: {sentiment}", f"says: {said}"]
    asked = [
        ("emotion", "Which emotion does the speaker express?", emotion, EMOTIONS),
        ("sentiment", "Which sentiment does the speaker express?", sentiment, SENTIMENTS),
    ]
    return [same | {"id": name, "labels": labels}] + [
        same
        | {"id": f"{name}-{kind}", "kind": kind, "question": question}
        | mixed(right, all_, context.seed, f"{name}-{kind}")
        for kind, question, right, all_ in asked
    ]


def _one_of(row: dict[str, str], column: str, known: tuple[str, ...]) -> str:
    value = text(row, column).lower()
    if value not in known:
        raise Drop(BAD_FIELD, f"{column} {value!r} is none of {', '.join(known)}")
    return value


SOURCE = Source(
    name="meld",
    needs="a CSV of MELD, such as train_sent_emo.csv, and, in --audio-root, each clip's audio as diaN_uttM.wav",
    licence="MELD labels: GPL-3.0; clips: the series Friends, copyright of its owners",
    read=lambda path: csv_rows(path, COLUMNS),
    convert=convert,
)
