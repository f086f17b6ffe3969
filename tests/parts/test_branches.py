"""Phases beyond ±π brought back by 2π, with the same transmission."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, stack

from jaxptycho.parts.branches import on_main_branch, share_past_pi
from jaxptycho.parts.stacks import PotentialSlices, WeakPhaseStack


@pytest.mark.parametrize("kind", ["phase", "potential"])
def test_a_phase_on_another_branch_returns_with_the_same_transmission(kind):
    inside = stack(3)
    specimen = (
        inside if kind == "phase" else PotentialSlices(100 * inside.phase, None, 8.0, inside.origin)
    )
    name = specimen.held["phase"]
    values = getattr(specimen, name)
    turn = 2 * math.pi / specimen.radians(GRID) * jnp.ones_like(values)
    shifted = values.at[0, :4].add(-turn[0, :4]).at[2, 7].add(2 * turn[2, 7])
    wrong = eqx.tree_at(lambda s: getattr(s, name), specimen, shifted)
    assert share_past_pi(specimen, GRID) == 0
    assert share_past_pi(wrong, GRID) == pytest.approx(5 / (3 * values.shape[1]))
    right = on_main_branch(wrong, GRID)
    np.testing.assert_allclose(getattr(right, name), values, atol=1e-3)
    np.testing.assert_allclose(
        right.slices(GRID).transmission, wrong.slices(GRID).transmission, atol=1e-5
    )


def test_a_weak_phase_has_no_branches():
    weak = stack(2, kind=WeakPhaseStack)
    strong = eqx.tree_at(lambda s: s.phase, weak, 10 * weak.phase)
    assert share_past_pi(strong, GRID) == 0
    assert on_main_branch(strong, GRID) is strong
