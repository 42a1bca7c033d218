"""Audio placeholders in questions, as trainers and chat templates write them: removed, or replaced by words.

Our prompts have all clips first and the question after them. A placeholder that stands apart is removed. One within a
sentence becomes the clip's name, as in Qwen2-Audio's own prompts:

    <audio>Which animal is heard?               ->  Which animal is heard?
    Is <audio> higher than <audio>?             ->  Is Audio 1 higher than Audio 2?
    Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>
    Audio 2: <audio>b.wav</audio>
    Which is louder?                            ->  Which is louder?

A row with any other tag, such as that of an image or of a turn, is dropped.
"""

import dataclasses
import re

from sari_jax.data.ledger import Drop

TAGS = "audio tags and sounds differ in number"
RUBBISH = "tags left in the text"
OTHER_MEDIA = "image or video"

_NAMES = "audio|sound|speech"
_MARK = re.compile(
    rf"""(?:(?<!\S)(?:audio|sound|clip)\ (?P<said>\d+)\ ?[:：]\s*)?(?:
    <\|?audio_bos\|?>\s*(?:<\|?audio\|?>\s*)+<\|?audio_eos\|?>       # Qwen2-Audio and 2.5-Omni
    | <\|audio_start\|>\s*(?:<\|audio_pad\|>\s*)+<\|audio_end\|>     # Qwen3-Omni
    | <\|audio(?:_(?P<pipe>\d+))?\|> | <\|audio_pad\|>               # and Phi-4's numbers
    | <(?:{_NAMES})>(?P<path>[^<>\n]+)</(?:{_NAMES})>                # Qwen-Audio's path
    | <(?:{_NAMES})>\s*</(?:{_NAMES})>
    | <\s?(?:{_NAMES})(?:_?(?P<number>\d+))?\s?/?>
    | <(?:{_NAMES})_?here>                                           # SALMONN
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_OTHER = re.compile(
    r"<(?:image|video)(?:_?\d+)?>|<img>|<\|(?:image|video|vision)[\w]*\|>|\[(?:image|video)\]",
    re.IGNORECASE,
)
# Special tokens, tags of media and turns, and a template's own names for audio.
_RUBBISH = re.compile(
    rf"""<\|[^\s<>|]{{1,40}}(?:\||>) | [<‹]｜[^<>]{{1,40}}[>›]
    | <\s?/?\s?[\w-]{{0,40}}(?:{_NAMES})[\w-]{{0,40}}(?:[\s:=/][^<>\n]{{0,200}})?> | &lt;/?(?:{_NAMES})\b
    | </?(?:image|video|img|box|bbox|ref|ref-object|music|wav|s|bos|eos|pad|unk|(?:start|end)_of_\w+|extra_id_\d+)>
    | \[(?:/?INST|PAD|UNK|CLS|SEP|MASK)\] | <</?SYS>>
    | \[\s?(?:{_NAMES})(?:[\s_-]?\d+)?\s?\] | \{{\s?(?:{_NAMES})(?:[\s_-]?\d+)?\s?\}}""",
    re.IGNORECASE | re.VERBOSE,
)
_SENTENCE_ENDS = tuple(".?!。？！…")
_CHOICE_MARK = re.compile(r"(?:^|\s)(?:\(?[A-Za-z0-9]{1,2}[.):]|[-*])$")
_OPENERS = frozenset(
    "what which who whose whom where when why how if there listen describe identify classify choose select pick tell"
    " name find determine decide judge given based answer please the this that in at from after you your".split()
)


@dataclasses.dataclass(frozen=True)
class Placed:
    """A text without placeholders.

    Attributes:
        sounds: the number of clips that had a placeholder.
        paths: the paths that stood in placeholders.
    """

    text: str
    sounds: int
    paths: list[str]


def marked(text: str) -> bool:
    """Whether the text contains an audio placeholder."""
    return _MARK.search(text) is not None


def placed(prompt: str) -> Placed:
    """Returns the question in words, without placeholders.

    Raises:
        Drop: placeholders are out of order, only some of them have paths, or the text contains media or unknown tags.
    """
    if _OTHER.search(prompt):
        raise Drop(OTHER_MEDIA, f"{_OTHER.search(prompt)[0]} in the question")
    marks = list(_MARK.finditer(prompt))
    paths = [mark["path"].strip() for mark in marks if mark["path"] and mark["path"].strip()]
    if paths and len(paths) != len(marks):
        raise Drop(TAGS, f"{len(paths)} of {len(marks)} sounds in the question have a path")
    for place, mark in enumerate(marks, 1):
        number = mark["said"] or mark["pipe"] or mark["number"]
        if number and int(number[-9:]) != place:
            raise Drop(TAGS, f"{mark[0].strip()[:40]!r} stands at the place of sound {place}")
    text = _worded(prompt, marks)
    refuse_tags(text, "the question")
    return Placed(text, len(marks), paths)


def refuse_tags(text: str, called: str) -> None:
    """Checks that a text contains no placeholder and no other tag.

    Raises:
        Drop: it contains one.
    """
    if found := _MARK.search(text) or _RUBBISH.search(text):
        raise Drop(RUBBISH, f"{found[0].strip()[:40]!r} in {called}")
    if found := _OTHER.search(text):
        raise Drop(OTHER_MEDIA, f"{found[0]} in {called}")


def _worded(prompt: str, marks: list[re.Match]) -> str:
    """Returns the prompt with each placeholder removed or replaced by its clip's name."""
    runs = _runs(prompt, marks)
    kinds = [_apart(prompt, marks[run[0]], marks[run[-1]], len(marks)) for run in runs]
    several = False in kinds
    parts, end = [], 0
    for run, apart in zip(runs, kinds, strict=True):
        first, last = marks[run[0]].start(), marks[run[-1]].end()
        before, after = prompt[end:first], prompt[last:]
        if apart is None:
            apart = not several and _opens(after)
        name = "" if apart else " ".join(f"Audio {place + 1}" for place in run)
        if name and before[-1:].isascii() and before[-1:].isalnum():
            name = f" {name}"
        if name and after[:1].isascii() and after[:1].isalnum():
            name = f"{name} "
        if apart and not after[:1].strip():  # one space is enough
            before = before.rstrip(" \t")
        elif apart and before[-1:].isascii() and before[-1:].strip():
            before = f"{before} "
        parts += [before, name]
        end = last
    return "".join([*parts, prompt[end:]]).strip()


def _runs(prompt: str, marks: list[re.Match]) -> list[list[int]]:
    """Groups the indices of placeholders with nothing but space between them."""
    runs: list[list[int]] = []
    for place, mark in enumerate(marks):
        if place and not prompt[marks[place - 1].end() : mark.start()].strip():
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def _apart(prompt: str, first: re.Match, last: re.Match, sounds: int) -> bool | None:
    """Whether a run of placeholders stands apart from the sentences around it; None where that is open."""
    left = prompt[: first.start()].rpartition("\n")[2].rstrip()
    right = prompt[last.end() :].partition("\n")[0].lstrip()
    if _CHOICE_MARK.search(left):
        return False
    ends = _SENTENCE_ENDS if sounds > 1 else (*_SENTENCE_ENDS, ":", "：")
    if left and not left.endswith(ends):
        return False
    if not right:
        return True
    if right[0] in ".,;:?!'’`)]。，；：？！、" or right[0] in "-–—":
        return False
    if right[0].isupper() or right[0].isdigit() or right[0] in '(["“‘*#':
        return True
    return None


def _opens(after: str) -> bool:
    """Whether a sentence begins there, by its first word. In scripts without capitals it is assumed to begin."""
    word = re.match(r"\s*([^\W\d_]+)", after)
    if not word or word[1][0].lower() == word[1][0].upper():
        return True
    return word[1].lower() in _OPENERS
