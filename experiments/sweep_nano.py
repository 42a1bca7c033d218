"""GRPO of nano over learning rates, KL coefficients and seeds: a sweep to start from.

Needs the model after SFT and the scored questions that `make demo` leaves in runs/demo. A run is 60 steps of
configs/grpo_nano.py, a quarter of that config's steps, and is evaluated on held-out questions.

    sari sweep experiments/sweep_nano.py --out runs/sweep                  a grid of eight runs
    sari sweep experiments/sweep_nano.py --out runs/study --trials 16      sixteen runs, chosen by earlier results

The same command goes on where it stopped. runs/sweep/results.md has the best run first.
"""

from pathlib import Path

from sari_jax.sweep.search import changed, grid
from sari_jax.train.flags import read_config_file

CONFIG = Path(__file__).parent.parent / "configs/grpo_nano.py"
DEMO = "runs/demo"


def get_runs():
    values = {
        "optimizer.learning_rate": [1e-4, 3e-4],
        "grpo.kl_coefficient": [0.0, 0.03],
        "seed": [0, 1],
    }
    return grid(base(), values)


def suggest(trial):
    values = {
        "optimizer.learning_rate": trial.suggest_float("learning_rate", 3e-5, 1e-3, log=True),
        "grpo.kl_coefficient": trial.suggest_float("kl_coefficient", 0.0, 0.1),
        "grpo.temperature": trial.suggest_float("temperature", 0.7, 1.3),
    }
    _, config = changed(base(), values)
    return config


def base():
    changes = {
        "steps": 60,
        "model.path": f"{DEMO}/sft",
        "data.train": f"{DEMO}/scored.jsonl",
        "held_out.data": f"{DEMO}/starter/validation.jsonl",
        "held_out.every": 60,
        "held_out.limit": 96,
    }
    return read_config_file(str(CONFIG), [f"--config.{key}={v}" for key, v in changes.items()])
