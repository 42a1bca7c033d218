"""The whole suite runs on eight fake CPU devices, offline, under runtime checks of every shape and type."""

import fcntl
import gc
import importlib.metadata
import importlib.util
import os
import resource
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Before JAX, transformers or a subprocess of a test reads them.
os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling takes most of the suite's time. Without LLVM's optimiser it takes half, and without the emitters that use
# MLIR half again. XLA's own passes stay on; the tests' bounds allow for the different rounding. The demo of
# test_noise.py compares programs with transformers as users compile them. The caller's flags come last and win.
# XLA stops at a flag that it does not know, and newer releases have only the MLIR emitters.
WITHOUT_MLIR = "--xla_cpu_use_fusion_emitters=false "
os.environ["XLA_FLAGS"] = (
    WITHOUT_MLIR * importlib.metadata.version("jaxlib").startswith("0.10.") +
    # `sari_jax.cli.main` adds the last of these flags. Without them here, tests before and after it would not share a
    # compilation cache.
    "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8 "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false "
    # On two busy cores, eight devices wait for each other longer than XLA's default limits.
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=300 " + os.environ.get("XLA_FLAGS", "")
)
# XLA runs independent operations at the same time, also collectives that wait for other devices. By default it has one
# thread per device. If some threads wait in one collective and the rest in another, no thread is left to finish either.
os.environ.setdefault("NPROC", "64")
# PyTorch's threads wait by spinning, which would take the cores of the other tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "jax")
# Caches small programs too, which every worker and every process of a test would otherwise compile again.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import parts  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

already = [name for name in sys.modules if name.startswith("sari_jax.")]
assert not already, f"imported before the type checks were installed: {already}"
install_import_hook("sari_jax", "typechecks.check")

# Markers of pyproject.toml.
PROOFS = set(parts.PARTS)
TOO_LONG = "took too long"
# Slower machines may set a higher limit.
LIMIT = float(os.environ.get("SARI_TEST_SECONDS", "5"))


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of its ended children, which do not depend on the machine's load."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fails an unmarked test that passes but takes more than 5 CPU seconds; its fixtures do not count.

    Compiling counts, because a fresh checkout has no compilation cache.
    """
    begun = cpu_seconds()
    result = yield
    used, limit = cpu_seconds() - begun, LIMIT
    if used > limit and not PROOFS & {mark.name for mark in item.iter_markers()}:
        pytest.fail(f"{TOO_LONG}: {used:.1f} CPU seconds of {limit:g}", pytrace=False)
    return result


def pytest_collection_finish():
    """Excludes the imported modules from garbage collection, since they stay until the end."""
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Drops compiled programs after each file; with all of them in memory, the last tests would take far longer."""
    if nextitem is None or nextitem.path != item.path:
        if jax := sys.modules.get("jax"):
            jax.clear_caches()
        gc.collect()


def pytest_terminal_summary(terminalreporter):
    """Lists the tests that took too long and what to do; pytest's short summary cuts such lines off."""
    failed = terminalreporter.stats.get("failed", [])
    long = [report for report in failed if str(report.longrepr).startswith(TOO_LONG)]
    if long:
        terminalreporter.section(f"tests that {TOO_LONG}")
        for report in long:
            terminalreporter.line(f"{report.nodeid}\n    {report.longrepr}")
        marks = ", ".join(sorted(PROOFS))
        terminalreporter.line(f"Make them shorter, or mark each as a proof, with one of: {marks}.")


def pytest_addoption(parser):
    parser.addoption(
        "--record", action="store_true", help="write what PyTorch finds to tests/recorded"
    )
    parser.addoption("--share", default="1/1", help="K/N: the Kth of N shares of the tests")


def pytest_configure(config):
    try:
        parts.share([], config.getoption("share"))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config, items):
    """Marks tests that use `recorded`; after -m has selected tests, takes a share of them."""
    for item in items:
        if "recorded" in item.fixturenames:
            item.add_marker("recorded")
    if config.getoption("record"):
        if importlib.util.find_spec("torch") is None:
            raise pytest.UsageError("--record writes what PyTorch finds, which is not installed")
        items[:] = [item for item in items if "recorded" in item.fixturenames]
    yield
    chosen = parts.share(items, config.getoption("share"))
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


@pytest.fixture
def recorded(request):
    """A function that yields pairs of our and their arrays, with PyTorch and without; see `recording`."""
    import recording

    if importlib.util.find_spec("torch"):
        import theirs  # noqa: F401  here, so that no test's time includes importing PyTorch
    file = recording.place(request.path, request.node.name)
    record = request.config.getoption("record")
    return lambda ours, find: recording.pairs(file, ours, find, record)


@pytest.fixture(scope="session")
def theirs():
    """The module `theirs`, which runs transformers, for tests that need it."""
    pytest.importorskip("torch", reason="about PyTorch, which is not installed")
    import theirs

    return theirs


@pytest.fixture
def make_record():
    """A function that makes a valid record, with any field changed."""
    from sari_jax.data.records import Clip, Record

    def make(**changes) -> Record:
        fields = dict(
            id="r1",
            audio=(Clip("dog.wav"),),
            question="Which animal is heard?",
            choices=("cat", "dog", "hen"),
            answer_index=1,
            task="sound",
            source="made up",
            licence="CC0-1.0",
            chain_structured={
                "planning": "I listen for an animal.",
                "caption": "Something barks twice.",
                "reasoning": "Dogs bark.",
                "summary": "It is a dog.",
            },
            chain_free="It barks, so it is a dog.",
        )
        return Record(**(fields | changes))

    return make


def once(factory: pytest.TempPathFactory, name: str, make) -> Path:
    """Returns a folder that `make` fills; the first worker that asks for it makes it, and all workers read it."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)
    with open(shared / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made := shared / f"{name}.made").exists():
            make(shared / name)
            made.touch()
    return shared / name


@pytest.fixture(scope="session")
def imported() -> None:
    """Imports what reading a model needs of transformers, so that no test's time includes those seconds."""
    from transformers import (  # noqa: F401
        AutoTokenizer,
        Qwen2_5OmniThinkerConfig,
        Qwen2AudioConfig,
        Qwen2AudioProcessor,
    )


@pytest.fixture(scope="session")
def nano_dir(imported, tmp_path_factory) -> Path:
    """The assembled nano model's directory; read only."""
    from sari_jax.assemble import assemble

    return once(tmp_path_factory, "nano", lambda out: assemble("nano", out))


@pytest.fixture(scope="session")
def nano_processor(nano_dir):
    from sari_jax.data.processor import Processor
    from sari_jax.hf.config import read_config

    return Processor(nano_dir, read_config(nano_dir))


@pytest.fixture(scope="session")
def starter_dir(tmp_path_factory) -> Path:
    """A small starter corpus, 8 questions of each kind to train on; read only."""
    from sari_jax.corpus.sources import starter

    sizes = dict(train=96, validation=12, test=24)
    return once(tmp_path_factory, "starter", lambda out: starter.build(out, **sizes))


@pytest.fixture(
    scope="session",
    params=(
        "multi_head_80",
        "grouped_128_tied",
        "multi_head_128",
        "grouped_80_tied",
        "omni",
        "omni_thinker_tied",
    ),
)
def tiny_model(imported, request, tmp_path_factory):
    """Each of the tiny random models."""
    import tiny

    return tiny.make(tmp_path_factory.mktemp("models") / request.param, tiny.SIZES[request.param])


@pytest.fixture(scope="session")
def one_tiny(imported, tmp_path_factory):
    """A grouped-query, untied tiny model, for tests that do not depend on the kind of model."""
    import tiny

    return tiny.make(tmp_path_factory.mktemp("models") / "one", tiny.Sizes())


@pytest.fixture(scope="session")
def with_nanos_tokenizer(nano_dir, nano_processor, tmp_path_factory):
    """A function that writes a tiny model with nano's tokenizer and template, to train and to ask."""
    import shutil

    import tiny

    def write(family: str, **sizes: int) -> Path:
        out = tmp_path_factory.mktemp("models") / family
        vocabulary = len(nano_processor.tokenizer)
        of_nano = dict(vocabulary=vocabulary + -vocabulary % 8, audio_id=nano_processor.audio_id)
        tiny.make(out, tiny.Sizes(family=family, **of_nano, **sizes))
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
            shutil.copyfile(nano_dir / name, out / name)
        shutil.copyfile(nano_dir / "chat_template.jinja", out / "chat_template.jinja")
        return out

    return write


@pytest.fixture(scope="session")
def omni_dir(with_nanos_tokenizer) -> Path:
    """A tiny whole Qwen2.5-Omni; read only."""
    return with_nanos_tokenizer("qwen2_5_omni")


@pytest.fixture(scope="session")
def light_model(with_nanos_tokenizer) -> Path:
    """A tiny Qwen2-Audio with a small tower; read only."""
    return with_nanos_tokenizer("qwen2_audio", tower_heads=2)


@pytest.fixture(scope="session")
def small_model(imported, tmp_path_factory) -> Path:
    """nano's files and formats with a decoder that compiles in seconds."""
    from sari_jax.assemble import NanoSize, assemble

    size = NanoSize(width=32, layers=2, heads=2, kv_heads=2, ffn=48)
    return once(tmp_path_factory, "small", lambda out: assemble("nano", out, size=size))


@pytest.fixture(scope="session")
def scored(starter_dir, tmp_path_factory) -> Path:
    """A few training questions with made-up pass rates, one of them unsolved.

    They are so few that a run passes over them three times. Later epochs take the tower's output from memory; a resumed
    run computes it again, in different batches.
    """
    import dataclasses

    from sari_jax.data.records import read_records, write_records

    records = read_records(starter_dir / "train.jsonl")[:9]
    rated = [dataclasses.replace(record, pass_rate=i / 8) for i, record in enumerate(records)]
    out = tmp_path_factory.mktemp("scored") / "scored.jsonl"
    write_records(out, rated)
    return out


@pytest.fixture(scope="session")
def whole(request, scored, tmp_path_factory):
    """A function that returns the workdir of an uninterrupted run; read only."""

    import functools

    from runs import command, finish

    @functools.cache
    def run(stage: str, family: str) -> Path:
        workdir = tmp_path_factory.mktemp("whole") / f"{stage}-{family}"
        done = finish(command(stage, request.getfixturevalue(family), scored, workdir))
        assert done.returncode == 0, done.stderr[-2000:]
        return workdir

    return run


@pytest.fixture(scope="session")
def answering(small_model, scored, tmp_path_factory) -> Path:
    """The small model after a few SFT steps. It answers in the right form, so that rewards differ within groups."""
    from runs import command, finish, sari

    folder = tmp_path_factory.mktemp("answering")
    changes = {
        "steps": 30,
        "data.style": "direct",
        "data.shapes.answer_tokens": "(16,)",
        "optimizer.learning_rate": 0.02,
        "samples_every": 99,
        "checkpoint.every": 30,
    }
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    for words in (
        command("sft", small_model, scored, folder / "run", *overrides),
        sari("export", "--workdir", folder / "run", "--out", folder / "model"),
    ):
        done = finish(words)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder / "model"
