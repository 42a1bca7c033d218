"""Advantages of a group's rewards to use alone: `sari.advantages`."""

from sari_jax.rl.advantages import (
    ADVANTAGES,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
    zero_spread,
)

__all__ = [
    "ADVANTAGES",
    "centred_advantages",
    "group_advantages",
    "leave_one_out_advantages",
    "zero_spread",
]
