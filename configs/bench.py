"""The work of `sari bench`: a GRPO step of one 30 s clip, 8 completions of 64 tokens, and an SFT step of 16 examples.

Reproduces: nothing of the paper; sizes are ours, for two cores. Costs: about half an hour, most of it PyTorch's.

    sari bench --config configs/bench.py --against torch
"""

import dataclasses

from ml_collections import ConfigDict

from sari_jax.scale.work import Work


def get_config():
    return ConfigDict(dataclasses.asdict(Work()))
