"""The rules of this repository, checked on its source: the direction of imports, forbidden modules, file names."""

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sari_jax"
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALL = sorted(
    path
    for folder in ("sari_jax", "tests", "configs", "experiments", "tpu_scripts")
    for path in (ROOT / folder).rglob("*.py")
)

# Layers from top to bottom. A file imports from its own part and from lower layers, never from another part of its
# layer.
LAYERS = [
    {"cli"},
    {"api"},
    {"sweep"},
    {"report"},
    {"assemble", "scale"},
    {"corpus", "evaluate"},
    {"train"},
    {"sft", "rl"},
    {"generate"},
    {"data", "hf"},
    {"models"},
    {"parallel"},
    {"audio"},
    {"programs"},
    {"assets"},
    {"digests"},
    {"atomic", "foreign", "settings", "user_file"},
    {"errors", "noise"},
]
# The parts that a training job runs. They never import the tools, which build corpora, report, sweep or measure.
TRAINS = ("train", "sft", "rl", "generate", "data", "hf", "models", "parallel", "audio", "programs")
TOOLS = {"api", "assemble", "corpus", "evaluate", "report", "scale", "sweep"}
DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}
NEEDS_TORCH = ("sari_jax/scale/", "sari_jax/evaluate/parity.py")
VAGUE = {
    "util",
    "utils",
    "helper",
    "helpers",
    "misc",
    "common",
    "manager",
    "managers",
    "handler",
    "handlers",
}

# Modules without a test file of their own, and why.
TESTED_ELSEWHERE: dict[str, str] = {
    "sari_jax/api/advantages.py": "test_api_page.py runs the page's example of it",
    "sari_jax/api/losses.py": "test_api_page.py runs the page's example of it",
    "sari_jax/api/rewards.py": "test_api_page.py runs the page's example of it",
    "sari_jax/cli/__main__.py": "train/test_pods.py starts hosts with it",
    "sari_jax/cli/arguments.py": "cli/test_main.py passes them",
    "sari_jax/cli/models.py": "cli/test_main.py runs them",
    "sari_jax/cli/report.py": "report/test_page.py and report/test_page_in_a_browser.py run it",
    "sari_jax/cli/runs.py": "cli/test_main.py runs them",
    "sari_jax/cli/sweep.py": "sweep/test_local.py and tpu_scripts/test_sweep.py run it",
    "sari_jax/sweep/slices.py": "tpu_scripts/test_sweep.py launches what it writes",
    "sari_jax/models/config.py": "plain dataclasses; hf/test_config.py fills them",
    "sari_jax/hf/family.py": "hf/test_config.py reads configs through it",
    "sari_jax/hf/families/qwen2_audio.py": "hf/test_config.py reads its config, hf/test_names.py its names",
    "sari_jax/models/layers.py": "compared with transformers as part of models/test_audio_lm.py",
    "sari_jax/models/decoder.py": "compared with transformers as part of models/test_audio_lm.py",
    "sari_jax/generate/engine.py": "cli/test_main.py and evaluate/test_parity.py answer with it",
    "sari_jax/evaluate/attempts.py": "evaluate/test_difficulty.py interrupts and resumes them",
    "sari_jax/scale/work.py": "scale/test_bench.py runs it on both sides",
    "sari_jax/scale/serve.py": "scale/test_bench.py runs both sides with it",
    "sari_jax/scale/jax_side.py": "scale/test_bench.py compares it with torch_side.py",
    "sari_jax/scale/torch_side.py": "scale/test_bench.py compares it with jax_side.py",
    "sari_jax/train/callbacks.py": "api/test_training.py is called back with it",
    "sari_jax/train/rollouts.py": "train/test_loop.py samples with it, on one device and two",
    "sari_jax/train/held_out.py": "train/test_loop.py and train/test_pods.py evaluate while they train",
    "sari_jax/train/samples.py": "train/test_metrics.py writes them and reads them again",
    "sari_jax/train/stages.py": "train/test_loop.py runs both stages",
    "sari_jax/train/sft.py": "train/test_loop.py runs it",
    "sari_jax/train/scoring.py": "train/test_grpo.py runs it with and without a reference",
    "sari_jax/train/inputs.py": "train/test_loop.py and train/test_pods.py give it good and bad ones",
    "sari_jax/train/trainer.py": "train/test_loop.py kills, stops and resumes it",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> list[str]:
    """Returns the dotted names that a file imports, within functions too; `from a import b` is a.b."""
    found = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: write imports in full"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def of_each(paths: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """Turns a check of one file into one test of all files, which lists every offender."""

    def one_test(check: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            offenders = []
            for path in paths:
                try:
                    check(path)
                except AssertionError as error:
                    offenders.append(f"{name_of(path)}: {error}")
            assert not offenders, "\n".join(offenders)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return one_test


@of_each(SOURCES)
def test_imports_run_downwards_only(path):
    part = part_of(path)
    if part == "__init__":
        return  # the public names; test_api.py checks that they are lazy
    assert part in DEPTH, f"give {part} its place in LAYERS"
    for name in imports(path):
        if name.startswith("sari_jax."):
            other = name.split(".")[1]
            allowed = other == part or DEPTH[other] > DEPTH[part]
            assert allowed, f"{name_of(path)} imports {name}: {part} must not know {other}"


@of_each([path for path in SOURCES if part_of(path) in TRAINS])
def test_what_trains_never_imports_tools(path):
    used = {name.split(".")[1] for name in imports(path) if name.startswith("sari_jax.")}
    assert not used & TOOLS, f"imports {', '.join(sorted(used & TOOLS))}"


def test_no_circles_within_a_part():
    modules = {name_of(path).removesuffix(".py").replace("/", "."): path for path in SOURCES}
    graph = {
        module: {
            other
            for name in imports(path)
            for other in (name, name.rpartition(".")[0])
            if other in modules and other != module
        }
        for module, path in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for other in graph[module]:
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@of_each(SOURCES)
def test_torch_stays_where_it_is_compared_with(path):
    if not name_of(path).startswith(NEEDS_TORCH):
        assert not [
            name
            for name in imports(path)
            if name.split(".")[0] in ("torch", "torchaudio", "torchvision")
        ]


def test_the_suite_starts_without_torch():
    """Tests import PyTorch within functions, or by the fixtures `theirs` and `recorded`."""
    for path in (path for path in ALL if name_of(path).startswith("tests/")):
        tree = parsed(path)
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = [getattr(n, "module", None) or n.names[0].name for n in top]
        needed = {"torch", "theirs"} & {name.split(".")[0] for name in names}
        assert not needed or name_of(path) == "tests/theirs.py", f"{name_of(path)}: {needed}"


@of_each(ALL)
def test_nothing_read_is_ever_run(path):
    """Files are neither unpickled nor evaluated."""
    unsafe = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not [name for name in imports(path) if name.split(".")[0] in unsafe]
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            where = f"{name_of(path)}:{node.lineno}"
            if isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), where
            for keyword in node.keywords:
                allows = keyword.arg == "allow_pickle" and ast.literal_eval(keyword.value)
                assert not allows, where


@of_each(ALL)
def test_a_file_fits_in_a_head(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 500, f"{name_of(path)} has {lines} lines: is it still one idea?"


@of_each(ALL)
def test_names_say_something(path):
    words = {
        word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")
    }
    assert not words & VAGUE


@of_each(SOURCES)
def test_every_module_says_what_it_is_for(path):
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body


@of_each([path for path in SOURCES if path.stem != "__init__"])
def test_a_module_has_its_test_where_promised(path):
    within = path.relative_to(PACKAGE)
    test = ROOT / "tests" / within.parent / f"test_{within.name}"
    if name_of(path) in TESTED_ELSEWHERE:
        assert not test.exists(), f"{name_of(test)} exists: take the exception out"
    else:
        assert test.exists(), f"write {name_of(test)}, or say in TESTED_ELSEWHERE why not"


def test_what_is_tested_elsewhere_is_tested_there():
    for path, reason in TESTED_ELSEWHERE.items():
        assert (ROOT / path).exists(), f"{path} is gone: take it out"
        for test in re.findall(r"[\w/]+/test_\w+\.py", reason):
            assert (ROOT / "tests" / test).exists(), f"{path}: {test} does not exist"
