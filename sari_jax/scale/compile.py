"""Compiles each program of a run with the TPU compiler, without a TPU: does the run fit, and what bounds it?"""

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

# Name of a Pallas kernel in a compiled module.
KERNEL = "tpu_custom_call"
# The compiler has two messages for a program that needs too much memory: one after the whole layout, and an earlier one
# about its temporaries.
_OVER = re.compile(
    r"(?:Used |memory required for HLO temporaries \()([\d.]+)([KMG])(?: of |\) exceeds)"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """The compiler's figures for one program; see `report` for the units.

    Attributes:
        once, per_token: bytes of collectives, for the whole program and for one token of decoding.
        kernels: number of Pallas kernels in the module.
    """

    peak: float
    seconds: float
    fits: bool
    arguments: float = 0.0
    temporaries: float = 0.0
    once: dict[str, float] = dataclasses.field(default_factory=dict)
    per_token: dict[str, float] = dataclasses.field(default_factory=dict)
    kernels: int = 0


def compile_run(
    run: Run,
    name: str,
    *,
    slices: int = 1,
    question: Question = Question(),
    only: Sequence[str] = (),
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Compiles a run's programs for a topology.

    Args:
        only: the names of the programs to compile; default all.
        log: a function that takes a line of progress.

    Returns:
        The figures of the slice and the run, and under `programs` a row of `report` for each program.

    Raises:
        InputError: the topology does not exist, the settings do not suit it, `only` names an unknown program, or a
            module lacks the attention kernel that the settings ask for.
    """
    # A program for a TPU that was loaded from the cache could not be opened on this machine.
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
        log(f"{program.name}: compiling for {place.chips} chips")
        found = compile_one(program, place)
        if program.kernels and run.model.attention == "splash" and not found.kernels and found.fits:
            raise InputError(
                f"{program.name}: the compiled module lacks attention's kernel; set model.attention to another value"
            )
        rows[program.name] = report(program, found, place)
        log(f"{program.name}: {rows[program.name]['peak_hbm_gib']:.2f} GiB, {found.seconds:.0f} s")
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
    """Compiles a program. If it needs more memory than a chip has, the result has `fits` false."""
    begun = time.perf_counter()
    lowered = program.lower()
    try:
        compiled = lowered.compile()
    except Exception as error:  # XlaRuntimeError, which JAX does not export
        need = needed(str(error))
        if need is None:
            raise
        seconds = time.perf_counter() - begun
        return Compiled(peak=need + program.beside, seconds=seconds, fits=False)
    seconds = time.perf_counter() - begun
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    traffic = moved(text)
    # The stages of decoding differ in how many rows are left; the first stage, which has all of them, moves most.
    per_token = max(traffic.per_turn, key=lambda turn: sum(turn.values()), default={})
    peak = memory.peak_memory_in_bytes + program.beside
    return Compiled(
        peak=peak,
        seconds=seconds,
        fits=peak <= place.usable,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        once=dict(traffic.once),
        per_token=dict(per_token),
        kernels=text.count(f'custom_call_target="{KERNEL}"'),
    )


def needed(error: str) -> float | None:
    """Returns the bytes that a program needs by the compiler's out-of-memory error; None for any other error."""
    over = _OVER.search(error)
    return float(over[1]) * _UNITS[over[2]] if over else None


def report(program: Program, found: Compiled, place: Topology) -> dict[str, Any]:
    """Returns one program's row.

    Sizes are of one chip: GiB in its memory, bytes that it sends. `peak_hbm_gib` includes `beside_gib`, which stays on
    the chip while the program runs. `seconds` has a lower bound each for arithmetic, for the chip's memory and for its
    links along one axis of the torus; the largest of them bounds the program. The network between slices is slower than
    these links, but is counted as if it were one of them.
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


def table(result: dict[str, Any]) -> str:
    """Formats the result of `compile_run` for people."""
    lines = [
        f"{'program':<10}{'peak GiB':>10}{'beside':>9}{'TFLOP':>9}{'sent GB':>9}{'compute':>10}{'hbm':>9}"
        f"{'links':>9}  bound by"
    ]
    for name, row in result["programs"].items():
        terms = row["seconds"]
        lines.append(
            f"{name:<10}{row['peak_hbm_gib']:>10.2f}{row['beside_gib']:>9.2f}{row['flops_per_chip'] / 1e12:>9.1f}"
            f"{sum(row['collective_bytes'].values()) / 1e9:>9.2f}{terms['compute']:>9.3f}s{terms['hbm']:>8.3f}s"
            f"{terms['interconnect']:>8.3f}s  {row['bound_by'] if row['fits'] else 'DOES NOT FIT'}"
        )
    what = "the run" if result["complete"] else "every program that was compiled"
    verdict = f"{what} fits" if result["fits"] else "the run does NOT fit"
    where = result["topology"]
    if result["slices"] > 1:
        where += f", {result['slices']} slices"
    lines.append(
        f"{verdict} {result['chips']} chips of {result['hbm_gib_per_chip']:.0f} GiB,"
        f" {result['usable_gib_per_chip']:.2f} of them for programs ({where})"
    )
    return "\n".join(lines)
