"""Questions that stand twice: the same text about the same sound, exactly or nearly.

The same question about other sounds is no duplicate (a corpus may have ten questions and ten thousand clips), nor is
another question about the same sound.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sari_jax.data.clean.texts import alike, choices_alike, choices_key, plain_text, sorted_words
from sari_jax.data.records import Record

EXACT, NEAR = "exact duplicate", "near duplicate"
QUESTION, CHOICES = (
    95.0,
    90.0,
)  # of 100: alike enough; "first" for "last" is 93 in a question of 60 letters


def find_duplicates(
    records: Sequence[Record],
    sounds: Sequence[tuple[int, ...]],
    near: Iterable[tuple[int, int, float]] = (),
) -> dict[int, tuple[str, str]]:
    """Rows to leave out, each with its reason and what it repeats: always a row before it that stays.

    Args:
        sounds: of each record its clips, as numbers that are equal where the sounds are.
        near: pairs of those numbers whose sounds are nearly the same, and the fraction of bits in which they differ.
    """
    errors = {(a, b): share for i, j, share in near for a, b in ((i, j), (j, i))}
    beside = defaultdict(set)
    for a, b in errors:
        beside[a].add(b)
    seen: dict[tuple, int] = {}
    kept: dict[int, list[int]] = defaultdict(list)  # by the first clip
    found = {}
    for row, (record, clips) in enumerate(zip(records, sounds, strict=True)):
        answer = plain_text(record.choices[record.answer_index])
        key = (plain_text(record.question), choices_key(record.choices), answer, clips)
        if key in seen:
            found[row] = (
                EXACT,
                f"of {records[seen[key]].id}: question, choices and sound are the same",
            )
            continue
        for other in sorted(row for clip in {clips[0], *beside[clips[0]]} for row in kept[clip]):
            told = _near(record, records[other], clips, sounds[other], errors)
            if told:
                found[row] = NEAR, f"of {records[other].id}: {told}"
                break
        else:
            seen[key] = row
            kept[clips[0]].append(row)
    return found


def _near(
    one: Record,
    other: Record,
    clips: tuple[int, ...],
    others: tuple[int, ...],
    errors: dict[tuple[int, int], float],
) -> str:
    """How alike two records are, if they are."""
    pairs = list(zip(clips, others, strict=False))
    if len(clips) != len(others) or any(a != b and (a, b) not in errors for a, b in pairs):
        return ""
    answers = [plain_text(record.choices[record.answer_index]) for record in (one, other)]
    question = alike(sorted_words(one.question), sorted_words(other.question))
    if answers[0] != answers[1] or question < QUESTION:
        return ""
    choices = choices_alike(choices_key(one.choices), choices_key(other.choices))
    if choices < CHOICES:
        return ""
    worst = max(errors.get(pair, 0.0) for pair in pairs)
    return f"question {question:.0f} and choices {choices:.0f} of 100 alike, {worst:.0%} of the sound's bits differ"
