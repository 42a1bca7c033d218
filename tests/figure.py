"""Draws docs/packages.svg, the map of sari_jax, from the layers in test_house.py.

    python tests/figure.py

Run it after a change to LAYERS. `test_contributing.py` compares the file with what this draws.
"""

from html import escape
from pathlib import Path

FIGURE = Path(__file__).parent.parent / "docs" / "packages.svg"
ABOUT = {
    "cli": "the commands",
    "api": "the names of import sari_jax",
    "sweep": "many runs from one file",
    "report": "a page of runs and results",
    "assemble": "small checkpoints",
    "scale": "does a run fit, how fast",
    "corpus": "builds and cleans questions",
    "evaluate": "benchmarks, pass rates",
    "train": "config, loop, SFT and GRPO steps",
    "sft": "the loss of SFT",
    "rl": "rewards, advantages, losses",
    "generate": "samples completions",
    "data": "records, order, batches",
    "hf": "checkpoints in and out",
    "models": "tower, projector, decoder",
    "parallel": "mesh and hosts",
    "audio": "files, clips, features",
}
WIDTH, LEFT, HEIGHT, GAP = 760, 150, 40, 12
STYLE = """
  svg { --page: #ffffff; --text: #1f2328; --soft: #59636e; --tool: #fff1d6; --core: #dbeafe; --base: #eceff2; }
  @media (prefers-color-scheme: dark) {
    svg { --page: #15191f; --text: #e6edf3; --soft: #bcc6d0; --tool: #4a3a17; --core: #1d3557; --base: #2b323b; }
  }
  text { font: 14px system-ui, sans-serif; fill: var(--text); }
  .name { font-weight: 600; }
  .soft { fill: var(--soft); font-size: 13px; }
  .page { fill: var(--page); }
  .tool { fill: var(--tool); }
  .core { fill: var(--core); }
  .base { fill: var(--base); }
  .line { stroke: var(--soft); stroke-width: 1.5; fill: none; }
"""


def draw(layers: list[set[str]], trains: tuple[str, ...], packages: set[str]) -> str:
    """The figure as SVG text.

    Args:
        layers: from top to bottom, the parts of each layer.
        trains: the parts that training needs.
        packages: the parts that are folders. The other parts share the last row.
    """
    rows = [row for layer in layers if (row := sorted(layer & packages))]
    single = [part for layer in layers for part in sorted(layer - packages)]
    shapes, y = [], 50
    for row in rows:
        kind = "core" if set(row) <= set(trains) else "tool"
        shapes += _row(row, y, kind)
        if kind == "tool":
            border = y + HEIGHT + GAP / 2
        y += HEIGHT + GAP
    shapes += _modules(single, y)
    bottom = y + HEIGHT + 20
    shapes += [
        f'<path class="line" stroke-dasharray="5 4" d="M20 {border:g} H{WIDTH - 20}"/>',
        _text(20, border - 12, "tools", "soft"),
        _text(20, border + 22, "what trains", "soft"),
        f'<path class="line" d="M120 50 V{bottom - 20} M115 {bottom - 29} L120 {bottom - 20} L125 {bottom - 29}"/>',
        _text(
            20,
            28,
            "A package imports from the rows below its own, never from its own row or from above.",
        ),
        _text(20, 66, "imports", "soft"),
        _text(20, 82, "run down", "soft"),
    ]
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" role="img" '
        f'aria-label="The packages of sari_jax, from the commands down to the audio files">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="page" width="{WIDTH}" height="{bottom}" rx="8"/>\n{body}\n</svg>\n'
    )


def _row(row: list[str], y: int, kind: str) -> list[str]:
    width = (WIDTH - LEFT - 20 - GAP * (len(row) - 1)) / len(row)
    shapes = []
    for place, part in enumerate(row):
        x = LEFT + place * (width + GAP)
        shapes += [
            f'<rect class="{kind}" x="{x:g}" y="{y}" width="{width:g}" height="{HEIGHT}" rx="5"/>',
            _text(x + 12, y + 25, part, "name"),
            _text(x + 95, y + 25, ABOUT[part], "soft"),
        ]
    return shapes


def _modules(names: list[str], y: int) -> list[str]:
    width = WIDTH - LEFT - 20
    return [
        f'<rect class="base" x="{LEFT}" y="{y}" width="{width}" height="{HEIGHT}" rx="5"/>',
        _text(LEFT + 12, y + 25, ", ".join(names), "soft"),
    ]


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}">{escape(words)}</text>'


def current() -> str:
    """The figure of the layers as they are."""
    from test_house import LAYERS, PACKAGE, TRAINS

    packages = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    return draw(LAYERS, TRAINS, packages)


if __name__ == "__main__":
    FIGURE.write_text(current())
