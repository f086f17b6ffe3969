"""Atoms as a specimen."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, atoms

from jaxptycho import Atoms
from jaxptycho.physics import scattering


def test_slices_multiply_to_the_phase_of_the_whole():
    """σ ∫V dz of all atoms, the outer tails included, by Σ f(0) for the mean."""
    specimen = atoms()
    phase = jnp.angle(specimen.slices(GRID).transmission.astype(complex)).sum(0)
    area = GRID.pixel[0] * GRID.pixel[1]
    total = sum(
        scattering.VOLT_ANGSTROM2 * float(o) * scattering.scattering_factor(z, np.array(0.0))
        for z, o in zip(specimen.numbers, specimen.occupancy, strict=True)
    )
    np.testing.assert_allclose(phase.sum() * area, GRID.sigma * total, rtol=1e-4)


def test_a_bad_specimen_is_refused():
    with pytest.raises(ValueError, match="atomic number 0;"):
        Atoms([0], jnp.zeros((1, 3)), (8, 8), 2.0)
    with pytest.raises(ValueError, match=r"0 slices of 2\.0 Å; wanted at least one"):
        Atoms([6], jnp.zeros((1, 3)), (8, 8), 2.0, n_slices=0)
    with pytest.raises(ValueError, match=r"1 slices of -1\.0 Å"):
        Atoms([6], jnp.zeros((1, 3)), (8, 8), -1.0)
