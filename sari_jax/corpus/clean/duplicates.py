"""Duplicates: records with the same text about the same audio, exactly or nearly.

The same question about other audio is no duplicate: a corpus may have ten questions and ten thousand clips. Another
question about the same audio is none either.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sari_jax.corpus.clean.texts import alike, choices_alike, choices_key, plain_text, sorted_words
from sari_jax.data.records import Record

EXACT, NEAR = "exact duplicate", "near duplicate"
# The least similarity of a near duplicate, of 100. "first" for "last" gives 93 in a question of 60 letters.
QUESTION, CHOICES = 95.0, 90.0


def find_duplicates(
    records: Sequence[Record],
    sounds: Sequence[tuple[int, ...]],
    near: Iterable[tuple[int, int, float]] = (),
) -> dict[int, tuple[str, str]]:
    """Returns the rows to leave out, each with its reason and the record that it repeats.

    The repeated record always stands before the row and is itself kept.

    Args:
        sounds: the indices of the audio of each record's clips; equal audio has equal indices.
        near: pairs of indices whose audio is nearly the same, and the fraction of bits in which the two differ.
    """
    errors = {(a, b): share for i, j, share in near for a, b in ((i, j), (j, i))}
    leader = _leaders(errors)
    seen: dict[tuple, int] = {}
    # Kept rows by first clip (or by the leader of its group of near clips), answer and number of choices.
    kept: dict[tuple, list[int]] = defaultdict(list)
    beside = defaultdict(set)
    for a, b in errors:
        beside[a].add(b)
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
        form, clip = (answer, len(record.choices)), clips[0]
        groups = [(sound, *form) for sound in (clip, *beside[clip])]
        groups += [("led by", leader[clip], *form)] if clip in leader else []
        for other in sorted({row for group in groups for row in kept[group]}):
            likeness = _near(record, records[other], clips, sounds[other], errors, leader)
            if likeness:
                found[row] = NEAR, f"of {records[other].id}: {likeness}"
                break
        else:
            seen[key] = row
            kept[clip, *form].append(row)
            if clip in leader:
                kept["led by", leader[clip], *form].append(row)
    return found


def _leaders(errors: dict[tuple[int, int], float]) -> dict[int, int]:
    """Returns a leader for each sound that is near others: the first one near to it that has no leader before itself.

    Not all pairs of a crowd were compared. Two sounds of a crowd count as near each other if both are near its leader.
    """
    leader: dict[int, int] = {}
    for a, b in sorted((b, a) for a, b in errors if a < b):  # a is the later of the two
        if leader.setdefault(b, b) == b:
            leader.setdefault(a, b)
    return leader


def _near(
    one: Record,
    other: Record,
    clips: tuple[int, ...],
    others: tuple[int, ...],
    errors: dict[tuple[int, int], float],
    leader: dict[int, int],
) -> str:
    """Returns how alike two records with the same answer are, in words; empty where they are no near duplicates."""
    shares = [_apart(a, b, errors, leader) for a, b in zip(clips, others, strict=False)]
    if len(clips) != len(others) or None in shares:
        return ""
    question = alike(sorted_words(one.question), sorted_words(other.question))
    if question < QUESTION:
        return ""
    choices = choices_alike(choices_key(one.choices), choices_key(other.choices))
    if choices < CHOICES:
        return ""
    return (
        f"question {question:.0f} and choices {choices:.0f} of 100 alike,"
        f" {max(shares):.0%} of the sound's bits differ"
    )


def _apart(
    a: int, b: int, errors: dict[tuple[int, int], float], leader: dict[int, int]
) -> float | None:
    """Returns the fraction of bits in which two near sounds differ, or an upper bound by way of their leader.

    None where the two are not near.
    """
    if a == b or (a, b) in errors:
        return errors.get((a, b), 0.0)
    if a not in leader or leader[a] != leader.get(b):
        return None
    return errors[a, leader[a]] + errors[b, leader[a]]
