"""Atoms out of a volume: the right elements in the right places, seen by the same views."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import Atoms, Grid, PerView, Volume, select
from jaxptycho.analysis.assignment import compare_atoms
from jaxptycho.analysis.tracing import atoms_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GRID, PIXEL, SIDE = Grid((16, 16), 0.4, voltage_kv=80.0), 0.4, 30
NUMBERS = [26, 8, 8, 26, 8, 8]
PLACES = np.array(
    [
        [-2, -3, 1],
        [-2.5, 2.1, -3],
        [0.4, 0.3, 3.2],
        [2.3, -1.2, -1.3],
        [2.5, 3.3, 2.2],
        [-0.1, -4, -3.3],
    ]
)


def volume(**views) -> Volume:
    """Atoms at rest about the tilt axis, as voxels."""
    middle = SIDE // 2 * PIXEL
    heights = jnp.asarray(PLACES) + jnp.array([middle + PIXEL / 2, 0, 0])
    atoms = Atoms(NUMBERS, heights, (SIDE, SIDE), PIXEL, SIDE, (-middle, -middle), 12.0)
    volts = jnp.angle(atoms.slices(GRID).transmission) / (GRID.sigma * PIXEL)
    return Volume(volts, PIXEL, n_slices=3, taper=0.0, **views)


def test_every_view_of_the_atoms_is_that_of_the_volume():
    seen = volume(tilt=PerView(jnp.array([0.0, 0.4])))
    found = atoms_of(seen, ["O", "Fe"], threshold=10.0, debye_waller=12.0)
    places = np.asarray(found.positions) - [SIDE // 2 * PIXEL + PIXEL / 2, 0, 0]
    symbols, true = (
        np.where(np.array(numbers) == 26, "Fe", "O") for numbers in (found.numbers, NUMBERS)
    )
    compared = compare_atoms(places, PLACES, 0.5, symbols, true)
    assert compared.overall.f1 == 1
    assert not len(compared.swapped)
    assert compared.overall.rmsd.max() < 0.05
    ours, theirs = (
        np.angle(select(part, PerView, 1).slices(GRID).transmission) for part in (found, seen)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.05 * theirs.max())


def test_they_stand_where_the_volume_stands():
    found = atoms_of(volume(shift=(0.3, -0.2), angles=(0.01, 0.02)), ["O", "Fe"], threshold=10.0)
    np.testing.assert_allclose(found.shift, [0.3, -0.2])
    np.testing.assert_allclose(found.angles, [0.01, 0.02])
    assert found.n_slices == 3


def test_refusals():
    with pytest.raises(ValueError, match="no element is called Xy"):
        atoms_of(volume(), ["O", "Xy"], 1.0)
    with pytest.raises(ValueError, match=r"no voxel exceeds 1000000\.0 V"):
        atoms_of(volume(), ["O"], 1e6)
