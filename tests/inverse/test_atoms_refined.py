"""Atoms are refined from the diffraction itself: positions, vibrations and a vacancy's occupancy.

Once from patterns of the model itself (a matched-model test: it shows that the gradients lead home, nothing of real
data), and once from the independent, finer simulation with frozen phonons and Poisson counts.
"""

import ase
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxptycho as jp
from jaxptycho.inverse.losses import poisson
from jaxptycho.simulate.experiment import Experiment, Sampling, simulate
from jaxptycho.simulate.microscope import Microscope

GRID = jp.Grid((24, 24), 0.3, voltage_kv=80.0)
TRUE = np.array(
    [[2.0, 6.0, 6.3], [2.2, 8.1, 7.4], [6.0, 6.9, 8.8], [6.1, 8.6, 5.6], [2.1, 7.3, 4.9]]
)
NUMBERS = [42, 16, 74, 34, 16]
SHAPE = (48, 48)


def model(positions, debye_waller, occupancy):
    places = np.stack(np.meshgrid(*[np.linspace(5, 9.5, 5)] * 2, indexing="ij"), -1).reshape(-1, 2)
    atoms = jp.Atoms(
        NUMBERS,
        jnp.asarray(positions),
        SHAPE,
        thickness=1.0,
        n_slices=8,
        debye_waller=jnp.asarray(debye_waller),
        occupancy=jnp.asarray(occupancy),
    )
    probe = jp.AberratedProbe(0.03, {"defocus": 30.0}, 1e5)
    return jp.Model(probe, atoms, jp.FreeScan(jp.PerShot(jnp.asarray(places))), GRID)


def refined(found, batch, names):
    """The model after 250 steps, and the loss before the first and the last of them."""
    optimiser = jp.per_part(
        {name: optax.adam(optax.cosine_decay_schedule(0.05, 250)) for name in names}
    )
    found, losses = jp.minimise(jp.misfit(poisson), found, [batch] * 250, optimiser)
    return found, losses[0], losses[-1]


@pytest.mark.slow
def test_atoms_come_back_to_their_places_in_a_matched_model():
    rng = np.random.default_rng(0)
    true = model(TRUE, [0.4, 0.7, 0.3, 0.5, 0.6], [1, 1, 1, 1, 0.5])
    shots = np.arange(25)
    counts = jp.predict(true, shots)
    batch = jp.Batch(np.int32(0), shots.astype(np.int32), counts, np.ones(25, np.float32))
    moved = TRUE + rng.normal(size=TRUE.shape) * [0.3, 0.1, 0.1]
    names = ("specimen.positions", "specimen.debye_waller", "specimen.occupancy")
    found, first, last = refined(model(moved, np.full(5, 0.5), np.ones(5)), batch, names)
    assert last < 1e-4 * first
    error = np.asarray(found.specimen.positions) - TRUE
    assert np.abs(error[:, 1:]).max() < 0.002  # Å, from up to 0.12
    assert np.abs(error[:, 0]).max() < 0.1  # Å along the beam, from up to 0.7: by slices of 1 Å
    np.testing.assert_allclose(found.specimen.occupancy, [1, 1, 1, 1, 0.5], atol=0.02)
    np.testing.assert_allclose(found.specimen.debye_waller, [0.4, 0.7, 0.3, 0.5, 0.6], atol=0.1)
    assert len(jax.tree.leaves(eqx.filter(found.specimen, eqx.is_inexact_array))) == 6


@pytest.mark.slow
def test_atoms_come_back_from_an_independent_simulation():
    """Pixels of 0.08 Å and slices of 0.5 Å, 2/3 band limit, frozen phonons averaged as intensities, 10⁵ electrons a pattern.

    The model's waves are finer than the detector, of which its patterns are the middle: what heavy nuclei scatter beyond
    it would fold back and pull the atoms by some 0.04 Å.
    """
    middle, vibration = TRUE.mean(0), 8 * np.pi**2 * 0.05**2
    moved = TRUE + np.random.default_rng(0).normal(size=TRUE.shape) * [0.3, 0.1, 0.1]
    coarse = model(moved, np.full(5, vibration), np.ones(5))
    experiment = Experiment(
        atoms=ase.Atoms(numbers=NUMBERS, positions=(TRUE - middle)[:, ::-1]),
        grid=GRID,
        microscope=Microscope(0.03, 29.0),  # at its entrance face, 1 Å below that of the model
        scan=np.asarray(coarse.scan.positions.values) - middle[1:],
        dose=1e5,
        sampling=Sampling(0.08, 0.5),
        vibration=0.05,
        configurations=64,
    )
    assert experiment.box.origin[0] + middle[0] == pytest.approx(1.0)
    counts = np.concatenate([block for *_, block in simulate(experiment)]).astype(np.float32)
    counts = jnp.asarray(np.fft.ifftshift(counts, axes=(1, 2)))
    batch = jp.Batch(np.int32(0), np.arange(25, dtype=np.int32), counts, np.ones(25, np.float32))
    atoms = jp.Atoms(
        NUMBERS, jnp.asarray(moved), (128, 128), 1.0, 8, debye_waller=jnp.full(5, vibration)
    )
    fine = jp.Grid((64, 64), 24 * 0.3 / 64, voltage_kv=80.0)
    start = jp.Model(
        coarse.probe, atoms, coarse.scan, fine, detector=jp.Cropped(GRID.shape, jp.Ideal())
    )
    found, first, last = refined(start, batch, ["specimen.positions"])
    error = np.asarray(found.specimen.positions) - TRUE
    assert last < first
    assert (
        np.abs(error[:, 1:]).max() < 4 * 0.05 / 8 + 0.005
    )  # Å, from up to 0.12: four deviations of the mean of 64, and counts
    assert np.abs(error[:, 0]).max() < 0.4  # Å along the beam, from up to 0.7
