"""A leaning beam: it is the shear of the slices, and what atoms that are turned show."""

import ase
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, N_SHOTS, phases, positions, rng, thin

from jaxptycho import (
    AffineScan,
    Atoms,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    SliceStack,
    predict,
)
from jaxptycho.parts.propagator import BandLimited
from jaxptycho.simulate.experiment import Experiment, Sampling
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.scan import raster
from jaxptycho.start.tilt_coupled import tilt_coupled

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SHOTS = jnp.arange(N_SHOTS)
predicted = eqx.filter_jit(predict)


def test_a_leaning_beam_is_the_shear_of_the_slices():
    """By whole pixels from slice to slice, where the shear is exact: one in x, −2 in y for every slice."""
    tilt, about_x, thickness = (
        np.arctan(0.5 / 8),
        np.arctan(-0.8 / 8 * np.cos(np.arctan(0.5 / 8))),
        8.0,
    )
    phase = phases(3, GRID.shape)
    model = thin(specimen=SliceStack(phase, None, thickness, jnp.zeros(2), True))
    leaning = tilt_coupled(model, [0.0, tilt], [0.0, about_x], axis=0.0)
    sheared = jnp.stack([jnp.roll(layer, (2 * n, n), (0, 1)) for n, layer in enumerate(phase)])
    entries = leaning.scan.positions.values.values
    for view, slices in ((0, phase), (1, sheared)):
        upright = thin(
            specimen=SliceStack(slices, None, thickness, jnp.zeros(2), True),
            scan=FreeScan(PerShot(entries[view])),
        )
        expected = predicted(upright, SHOTS)
        np.testing.assert_allclose(
            predicted(leaning, SHOTS, view), expected, atol=1e-9 * float(expected.max())
        )
    np.testing.assert_allclose(entries[0], model.scan.positions.values, atol=1e-12)


def test_beams_enter_where_they_meet_the_face():
    """x = p/cos θ + h tan θ on a face h above the axis."""
    leaning = tilt_coupled(thin(), [0.1], axis=50.0)
    before, after = positions(), leaning.scan.positions.values.values[0]
    np.testing.assert_allclose(
        after[:, 1], before[:, 1] / np.cos(0.1) + 50 * np.tan(0.1), rtol=1e-12
    )
    np.testing.assert_allclose(after[:, 0], before[:, 0], rtol=1e-12)
    np.testing.assert_allclose(leaning.propagator.angles.values, [[0.0, -0.1]], atol=1e-12)


@pytest.mark.slow
def test_it_shows_what_turned_atoms_show():
    """The simulator turns atoms by ±3°; the beam leans over slices of atoms that stay."""
    grid, lens, tilts = (
        Grid((32, 32), 0.25, 80.0),
        Microscope(0.025, 20.0),
        np.deg2rad([0.0, 3.0, -3.0]),
    )
    places = (
        rng(3).uniform(-3, 3, (8, 3))
        + np.array([0, 0, 14.0]) * np.sign(np.arange(8) - 3.5)[:, None]
    )
    places[:, :2] += 0.7 * np.arange(8)[:, None] % 3
    specimen = ase.Atoms("Si8", positions=places)
    experiment = Experiment(
        atoms=specimen,
        grid=grid,
        microscope=lens,
        scan=raster((3, 3), 1.1),
        dose=1e3,
        sampling=Sampling(0.25, 1.5),
        tilts=tuple(tilts),
    )
    box = experiment.box
    height, corner = -box.origin[0], (-10.0, -10.0)
    heights = places[:, ::-1] + np.array([height, 0, 0])
    still = Atoms(
        specimen.numbers, jnp.asarray(heights), (80, 80), box.thickness, len(box.faces), corner
    )
    scan = FreeScan(PerShot(jnp.asarray(experiment.scan)))
    flat = Model(lens.probe(1e3), still, scan, grid, BandLimited())
    leaning = tilt_coupled(flat, tilts, axis=height)

    def error(model, view):
        found, seen = (
            np.asarray(v, float)
            for v in (predicted(model, jnp.arange(9), view), experiment.expected(view))
        )
        return np.linalg.norm(found - seen) / np.linalg.norm(seen)

    errors = [error(leaning, view) for view in range(3)]
    ignored = [error(flat, view) for view in range(3)]
    assert errors[0] < 0.02
    assert max(errors[1:]) < 2 * errors[0] + 0.01
    assert min(ignored[1:]) > 5 * max(errors[1:])


def test_refusals():
    with pytest.raises(
        ValueError,
        match=r"tilts of up to 30°; a tilted beam is valid up to 10°, rotate a Volume instead",
    ):
        tilt_coupled(thin(), np.deg2rad([0.0, -30.0]))
    affine = AffineScan(PerShot(positions()), jnp.eye(2), jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="expected a FreeScan"):
        tilt_coupled(thin(scan=affine), [0.01])
    with pytest.raises(ValueError, match="2 tilts came with the positions of 1 views"):
        tilt_coupled(thin(scan=FreeScan(PerView(PerShot(positions()[None])))), [0.01, 0.02])
