import numpy as np
import pytest
from matplotlib.image import imread

from sari_jax.report.charts import Bars, Chart, make_charts
from sari_jax.report.curves import plot_charts, plot_demo
from sari_jax.report.experiment import Experiment, Run

GRPO = [
    {"step": i, "reward": i / 30, "accuracy": i / 60, "format": 0.9}
    | {"seconds": 1.0, "seconds_update": 1.0}
    for i in range(1, 61)
]
SFT = [{"step": i, "loss": 3 / i} for i in range(1, 101)]


def experiment(metrics):
    name = "a $x_1 & <b>"
    run = Run(name=name, settings={}, metrics=metrics, questions=[], samples=[], held_out=[])
    return Experiment([run], [])


def test_every_chart_is_a_picture_of_its_own(tmp_path):
    charts = make_charts(experiment(GRPO))
    interval = [0.2, 0.6]
    labels = ("music", "$\\frac{", "a name that is long enough to be turned around")
    bars = (
        Bars(name="a", values=[0.5, None, 1.0], intervals=[interval, None, None]),
        Bars(name="_b", values=[0.1, 0.2, 0.3]),
    )
    key, title, unit = "by_task", "By task", "fraction"
    charts.append(Chart(key=key, title=title, unit=unit, labels=labels, bars=bars, rates=True))
    paths = plot_charts(charts, tmp_path / "new")
    names = ["reward", "accuracy", "format", "seconds_0", "by_task"]
    assert [path.name for path in paths] == [f"{name}.png" for name in names]
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    for path in paths:
        height, width = imread(path).shape[:2]
        assert abs(width - 624) <= 2 and abs(height - 432) <= 2
        assert imread(path)[..., :3].std() > 0.02


def test_a_picture_is_replaced_whole(tmp_path, monkeypatch):
    (out,) = plot_charts(make_charts(experiment(SFT)), tmp_path)
    before = out.read_bytes()

    def torn(self, path, **_):
        path.write_bytes(before[:100])
        raise OSError("disk full")

    monkeypatch.setattr("sari_jax.report.curves.Figure.savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        plot_charts(make_charts(experiment(SFT[:50])), tmp_path)
    assert out.read_bytes() == before


@pytest.mark.parametrize("interval", [{}, {"interval": {"base": [0.2, 0.3], "grpo": [0.5, 0.7]}}])
def test_plot_demo(interval, tmp_path):
    summary = {"accuracy": {"base": 0.25, "sft": 0.5, "grpo": 0.6}, "chance": 0.27, **interval}
    plot_demo(summary, SFT, GRPO, tmp_path / "demo.png")
    assert imread(tmp_path / "demo.png").shape[:2] == (864, 1248)
    plot_demo(summary, [], [], tmp_path / "empty.png")
    assert not np.array_equal(imread(tmp_path / "demo.png"), imread(tmp_path / "empty.png"))
