import math

import numpy as np
import pytest
from matplotlib.image import imread

from sari_jax.errors import InputError
from sari_jax.report.curves import moving_average, plot_demo, plot_run

GRPO = [
    {"step": i, "loss": 0.0, "reward": i / 30, "accuracy": i / 60, "format": 0.9}
    for i in range(1, 61)
]
SFT = [{"step": i, "loss": 3 / i} for i in range(1, 101)]


@pytest.mark.parametrize(
    ("metrics", "panels"),
    [
        (GRPO, 2),
        (SFT, 1),
        (GRPO[:1], 2),
        ([{"step": 1, "accuracy": 0.5}], 1),
        ([{"step": 1}, {"step": 2, "reward": math.nan}, {"step": 3, "reward": 1.0}], 1),
    ],
)
def test_plot_run(metrics, panels, tmp_path):
    out = tmp_path / "new" / "curves.png"
    plot_run(metrics, out)
    height, width = imread(out).shape[:2]
    assert abs(width - 624 * panels) <= 2 and abs(height - 432) <= 2
    assert imread(out)[..., :3].std() > 0.02
    assert [path.name for path in out.parent.iterdir()] == ["curves.png"]


@pytest.mark.parametrize("metrics", [[], [{"step": 1}], [{"step": 1, "loss": math.nan}]])
def test_nothing_to_draw(metrics, tmp_path):
    with pytest.raises(InputError, match="no metrics to draw"):
        plot_run(metrics, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_is_replaced_whole(tmp_path, monkeypatch):
    out = tmp_path / "curves.png"
    plot_run(GRPO, out)
    before = out.read_bytes()

    def torn(self, path, **_):
        path.write_bytes(before[:100])
        raise OSError("disk full")

    monkeypatch.setattr("sari_jax.report.curves.Figure.savefig", torn)
    with pytest.raises(OSError, match="disk full"):
        plot_run(SFT, out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("interval", [{}, {"interval": {"base": [0.2, 0.3], "grpo": [0.5, 0.7]}}])
def test_plot_demo(interval, tmp_path):
    summary = {"accuracy": {"base": 0.25, "sft": 0.5, "grpo": 0.6}, "chance": 0.27, **interval}
    plot_demo(summary, SFT, GRPO, tmp_path / "demo.png")
    assert imread(tmp_path / "demo.png").shape[:2] == (864, 1248)
    plot_demo(summary, [], [], tmp_path / "empty.png")


def test_moving_average_looks_back_only():
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0, 5.0, 9.0]), 2), [1, 2, 4, 7])
    np.testing.assert_allclose(moving_average(np.array([1.0, 3.0]), 1), [1, 3])
    np.testing.assert_allclose(moving_average(np.array([2.0, 4.0]), 9), [2, 3])
