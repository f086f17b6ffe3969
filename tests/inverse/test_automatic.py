"""What a refinement chooses without being told, from the first model."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, stack, thin, transmission_stack

from jaxptycho.inverse.automatic import begins_tied, depth_of_field, keep_passive
from jaxptycho.parts.probe import AberratedProbe
from jaxptycho.parts.slices import mean_slice

SEMIANGLE = 0.02


def crystal(thickness: float, slices: int = 4):
    specimen = mean_slice(transmission_stack(slices, thickness=thickness / slices))
    return thin(specimen=specimen, probe=AberratedProbe(SEMIANGLE, {}, 1e3))


def test_the_depth_of_field_is_that_of_the_semiangle():
    expected = GRID.wavelength / SEMIANGLE**2
    assert depth_of_field(crystal(1.0)) == pytest.approx(expected, rel=0.15)


def test_identical_slices_thicker_than_the_depth_of_field_are_tied():
    depth = GRID.wavelength / SEMIANGLE**2
    assert begins_tied(crystal(1.5 * depth))
    assert not begins_tied(crystal(0.5 * depth))
    assert not begins_tied(crystal(1.5 * depth, slices=1))
    thick = crystal(1.5 * depth)
    assert not begins_tied(replace(thick, specimen=transmission_stack(4, thickness=depth)))


def test_matter_that_can_absorb_does_not_amplify():
    strong = eqx.tree_at(
        lambda s: s.transmission, transmission_stack(2), 2 + 1j * jnp.ones((2, 9, 9))
    )
    kept = keep_passive(thin(specimen=strong))(thin(specimen=strong)).specimen.transmission
    np.testing.assert_allclose(jnp.abs(kept), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.angle(kept), jnp.angle(strong.transmission), rtol=1e-6)
    phase_only = thin(specimen=eqx.tree_at(lambda s: s.absorption, stack(2), None))
    assert keep_passive(phase_only)(phase_only) is phase_only
