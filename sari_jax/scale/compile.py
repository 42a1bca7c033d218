"""Does a run fit a slice, and what bounds it: each of its programs through the real TPU compiler, without a TPU."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from sari_jax.errors import InputError
from sari_jax.scale.hlo import moved
from sari_jax.scale.programs import Program, Programs, Question
from sari_jax.scale.topology import GIB, Topology, topology
from sari_jax.train.config import Run

KERNEL = "tpu_custom_call"  # what a Pallas kernel is in a compiled module
# The two ways in which the compiler says what a program needs: when all is laid out, or sooner, of temporaries alone.
_OVER = re.compile(
    r"(?:Used |memory required for HLO temporaries \()([\d.]+)([KMG])(?: of |\) exceeds)"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one program; see `report` for the units."""

    peak: float
    arguments: float
    temporaries: float
    seconds: float
    fits: bool
    once: dict[str, float]
    per_token: dict[str, float]
    kernels: int


def compile_run(
    run: Run,
    name: str,
    *,
    slices: int = 1,
    question: Question = Question(),
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The report of a run on a topology: see `report`.

    Args:
        only: names of programs; all unless given.
        tell: takes a line of progress.

    Raises:
        InputError: a topology or settings that cannot be; an attention kernel that is not in the module it was asked
            for; a name in `only` that is no program of the run.
    """
    # A chip's program, kept, could not be opened here again.
    jax.config.update("jax_enable_compilation_cache", False)
    place = topology(name, slices)
    planned = Programs(run, place, question)
    programs = planned.all()
    known = [program.name for program in programs]
    for wanted in only:
        if wanted not in known:
            raise InputError(f"program {wanted!r} is unknown; this run has {', '.join(known)}")
    rows = {}
    for program in programs:
        if only and program.name not in only:
            continue
        tell(f"{program.name}: compiling for {place.chips} chips")
        found = compile_one(program, place)
        if program.kernels and run.model.attention == "splash" and not found.kernels and found.fits:
            raise InputError(f"{program.name}: attention's kernel is not in the compiled module")
        rows[program.name] = report(program, found, place)
        tell(f"{program.name}: {rows[program.name]['peak_hbm_gib']:.2f} GiB, {found.seconds:.0f} s")
    return {
        "topology": name,
        "slices": slices,
        "chips": place.chips,
        "hbm_gib_per_chip": place.memory / GIB,
        "usable_gib_per_chip": place.usable / GIB,
        "complete": len(rows) == len(programs),
        "state_gib_per_chip": planned.resident / GIB,
        "largest_replicated_mib": planned.largest_replicated / 2**20,
        "fits": all(row["fits"] for row in rows.values()),
        "bound_by": max(rows.values(), key=lambda row: row["seconds_at_least"])["bound_by"],
        "programs": rows,
    }


def compile_one(program: Program, place: Topology) -> Compiled:
    """Compiles a program; one that needs more than the chip has comes back as not fitting."""
    begun = time.perf_counter()
    lowered = program.lower()
    try:
        compiled = lowered.compile()
    except Exception as error:  # XlaRuntimeError, which JAX does not export
        need = needed(str(error))
        if need is None:
            raise
        need += program.beside
        return Compiled(need, 0.0, 0.0, time.perf_counter() - begun, False, {}, {}, 0)
    seconds, memory, text = (
        time.perf_counter() - begun,
        compiled.memory_analysis(),
        compiled.as_text(),
    )
    traffic = moved(text)
    # The stages of decoding differ in how many rows are left: the first has all.
    per_token = max(traffic.per_turn, key=lambda turn: sum(turn.values()), default={})
    peak = memory.peak_memory_in_bytes + program.beside
    return Compiled(
        peak,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        seconds,
        peak <= place.usable,
        dict(traffic.once),
        dict(per_token),
        text.count(f'custom_call_target="{KERNEL}"'),
    )


def needed(refusal: str) -> float | None:
    """The bytes that the compiler says a program needs, when it refuses it for want of memory; None otherwise."""
    over = _OVER.search(refusal)
    return float(over[1]) * _UNITS[over[2]] if over else None


def report(program: Program, found: Compiled, place: Topology) -> dict[str, Any]:
    """One program as a row.

    Sizes are GiB and bytes of one chip, in its memory or sent by it. `peak_hbm_gib` has in it what stays on the chip
    beside the program (`beside_gib`). The terms are the least seconds that arithmetic, the chip's memory and its links
    along one axis of the torus allow, each alone; what takes longest bounds the program. The network between slices is
    slower than these links, and not told apart from them here.
    """
    flops = program.flops / place.chips
    sent = dict(found.once)
    for kind, size in found.per_token.items():
        sent[kind] = sent.get(kind, 0) + program.turns * size
    terms = {
        "compute": flops / place.peak,
        "hbm": program.least_bytes / place.bandwidth,
        "interconnect": sum(sent.values()) / place.link,
    }
    bound = max(terms, key=terms.__getitem__)
    return {
        "fits": found.fits,
        "peak_hbm_gib": found.peak / GIB,
        "arguments_gib": found.arguments / GIB,
        "temporaries_gib": found.temporaries / GIB,
        "beside_gib": program.beside / GIB,
        "compile_seconds": found.seconds,
        "flops_per_chip": flops,
        "collective_bytes": sent,
        "collective_bytes_per_token": found.per_token,
        "kernels": found.kernels,
        "seconds": terms,
        "seconds_at_least": terms[bound],
        "bound_by": bound,
    }


def table(told: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{'program':<10}{'peak GiB':>10}{'beside':>9}{'TFLOP':>9}{'sent GB':>9}{'compute':>10}{'hbm':>9}"
        f"{'links':>9}  bound by"
    ]
    for name, row in told["programs"].items():
        terms = row["seconds"]
        lines.append(
            f"{name:<10}{row['peak_hbm_gib']:>10.2f}{row['beside_gib']:>9.2f}{row['flops_per_chip'] / 1e12:>9.1f}"
            f"{sum(row['collective_bytes'].values()) / 1e9:>9.2f}{terms['compute']:>9.3f}s{terms['hbm']:>8.3f}s"
            f"{terms['interconnect']:>8.3f}s  {row['bound_by'] if row['fits'] else 'DOES NOT FIT'}"
        )
    what = "the run" if told["complete"] else "what was compiled of it"
    verdict = f"{what} fits" if told["fits"] else "the run does NOT fit"
    where = told["topology"] + (f", {told['slices']} slices" if told["slices"] > 1 else "")
    lines.append(
        f"{verdict} {told['chips']} chips of {told['hbm_gib_per_chip']:.0f} GiB, {told['usable_gib_per_chip']:.2f} of"
        f" them for programs ({where})"
    )
    return "\n".join(lines)
