"""Counts the bytes that a compiled module moves between chips, from the module's text.

XLA's own cost analysis does not serve: it counts the body of a loop once, and omits collectives.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64}

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d+\w*|pred)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLS = re.compile(
    r"(?:calls|to_apply|called_computations|branch_computations)=\{?%?([\w.\-, %]+)"
)
_CONSTANT = re.compile(r"^  %?([\w.\-]+) = [su]\d+\[\]\S* constant\((\d+)\)")
_COMPARE = re.compile(r"^  ROOT .* compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
_ELEMENT = re.compile(r"^  %?([\w.\-]+) = \S+ get-tuple-element\(.*\), index=(\d+)")
_RESULT = re.compile(r"^  ROOT .* tuple\((.*?)\)(?:,|$)")
_ADD = re.compile(r"^  %?([\w.\-]+) = \S+ add\(%?([\w.\-]+), %?([\w.\-]+)\)")
_EXPLICIT = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Moved:
    """Bytes that one chip sends, by kind of collective.

    Attributes:
        once: the traffic outside of loops of unknown length. A loop of known length counts as often as it runs.
        per_turn: the traffic in one turn of each loop of unknown length, in the order of the text. Each such loop is a
            decoding stage.
    """

    once: Counter
    per_turn: list[Counter]


def moved(text: str) -> Moved:
    """Reads a compiled module.

    Every collective is counted as a ring. Each of n chips sends (n - 1) / n of the bytes that are gathered, scattered
    or exchanged, and twice that of an all-reduce. XLA may cut a collective into steps, which share one channel; it is
    counted once.
    """
    bodies = _computations(text)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    once = Counter()
    turns = []
    counted = Counter()

    def walk(name: str, times: int, into: Counter) -> None:
        for line in bodies.get(name, ()):
            for kind, size, channel in _collective(line):
                before = counted[channel] if channel else 0
                counted[channel] = max(before, times * size)
                into[kind] += max(0, times * size - before)
            loop = _WHILE.search(line)
            if loop:
                # XLA's CPU compiler writes the number of turns into the text, the TPU compiler does not.
                known = _TRIPS.search(line)
                length = int(known[1]) if known else _length(bodies[loop[1]], bodies[loop[2]])
                if length is None:
                    turns.append(Counter())
                    walk(loop[2], 1, turns[-1])
                else:
                    walk(loop[2], times * length, into)
            for callee in _called(line):
                walk(callee, times, into)

    walk(entry[1], 1, once)
    return Moved(once, turns)


def _computations(text: str) -> dict[str, list[str]]:
    found, lines = {}, []
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            lines = found.setdefault(head[1], [])
        elif line.startswith("  "):
            lines.append(line)
    return found


def _called(line: str) -> Iterator[str]:
    for names in _CALLS.findall(line):
        yield from (name.strip().lstrip("%") for name in names.split(",") if name.strip())


def _length(condition: list[str], body: list[str]) -> int | None:
    """Returns how often a loop runs if it counts from zero up to a constant; XLA may unroll several turns into one."""
    limits, counters = _matches(_CONSTANT, condition), _matches(_ELEMENT, condition)
    for counter, limit in _all(_COMPARE, condition):
        if limit in limits and counter in counters:
            return -(-int(limits[limit]) // _stride(body, int(counters[counter])))
    return None


def _stride(body: list[str], place: int) -> int:
    """Returns the number that a turn adds to the counter at position `place` of the loop's state."""
    constants = _matches(_CONSTANT, body)
    for (result,) in _all(_RESULT, body):
        counter = re.findall(r"%([\w.\-]+)", result)[place]
        for name, *terms in _all(_ADD, body):
            steps = [int(constants[term]) for term in terms if term in constants]
            if name == counter and steps:
                return steps[0]
    return 1


def _all(pattern: re.Pattern, lines: list[str]) -> list[tuple[str, ...]]:
    return [found.groups() for line in lines if (found := pattern.match(line))]


def _matches(pattern: re.Pattern, lines: list[str]) -> dict[str, str]:
    return dict(_all(pattern, lines))


def _collective(line: str) -> Iterator[tuple[str, float, str | None]]:
    found = _COLLECTIVE.search(line)
    if not found:
        return
    kind, group = found[2], _group(line)
    sizes = [_bytes(dtype, dims) for dtype, dims in _SHAPE.findall(found[1])]
    if f"{kind}-start(" in line and kind != "all-reduce":
        # Its type lists the inputs, then the outputs, then scalars.
        arrays = [_bytes(dtype, dims) for dtype, dims in _SHAPE.findall(found[1]) if dims]
        sizes = arrays[len(arrays) // 2 :]
    share = (group - 1) / group
    size = {
        "all-gather": share * sum(sizes),
        "all-reduce": 2 * share * sum(sizes),
        "reduce-scatter": (group - 1) * sum(sizes),
        "all-to-all": share * sum(sizes),
        "collective-permute": sum(sizes),
    }[kind]
    channel = _CHANNEL.search(line)
    yield kind, size, channel[1] if channel else None


def _bytes(dtype: str, dims: str) -> float:
    bits = BITS.get(dtype) or int(re.sub(r"\D*(\d+).*", r"\1", dtype))
    return math.prod(int(n) for n in dims.split(",") if n) * bits / 8


def _group(line: str) -> int:
    """Returns how many chips take part; XLA has three notations for it."""
    if found := _EXPLICIT.search(line):
        return len(found[1].split(","))
    if found := _IOTA.search(line):
        return int(found[2])
    if found := _MESH.search(line):
        sizes = dict(part.split("=") for part in found[1].replace("'", "").split(","))
        names = [name.strip(" '") for name in found[2].split(",")]
        return math.prod(int(sizes[name.split(":")[0]]) for name in names if name)
    # A permutation lists pairs of chips.
    return 2
