"""Branch of the phase: e^{iφ} is the same for φ + 2π, and a descent may end on a wrong one."""

import math
from typing import Any

import jax.numpy as jnp

from ..physics.grids import Grid


def has_branches(specimen: Any) -> bool:
    """True if phase or potential of a slice acts by e^{iφ} alone, and 2π more is the same."""
    return bool(specimen.held) and specimen.phase_is_gauge and not specimen.rotates


def share_past_pi(specimen: Any, grid: Grid) -> float:
    """Fraction of the pixels of all slices whose phase as stored is outside of [−π, π]."""
    if not has_branches(specimen):
        return 0.0
    return float(jnp.mean(jnp.abs(specimen.stack() * specimen.radians(grid)) > math.pi))


def on_main_branch(specimen: Any, grid: Grid) -> Any:
    """The specimen with the phase of every slice in [−π, π]; its transmission is the same."""
    if not has_branches(specimen):
        return specimen
    turn = 2 * math.pi / specimen.radians(grid)
    return specimen.map_stacks(lambda values: values - turn * jnp.round(values / turn), ("phase",))
