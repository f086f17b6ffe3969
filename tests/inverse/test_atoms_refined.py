"""Atoms are refined from the diffraction itself: positions, vibrations and a vacancy's occupancy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxptycho as jp
from jaxptycho.inverse.losses import poisson

GRID = jp.Grid((24, 24), 0.3, voltage_kv=80.0)
TRUE = np.array([[2.0, 6.0, 6.3], [2.2, 8.1, 7.4], [6.0, 6.9, 8.8], [6.1, 8.6, 5.6], [2.1, 7.3, 4.9]])
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


@pytest.mark.slow
def test_atoms_come_back_to_their_places():
    rng = np.random.default_rng(0)
    true = model(TRUE, [0.4, 0.7, 0.3, 0.5, 0.6], [1, 1, 1, 1, 0.5])
    shots = np.arange(25)
    counts = jp.predict(true, shots)
    batch = jp.Batch(np.int32(0), shots.astype(np.int32), counts, np.ones(25, np.float32))
    moved = TRUE + rng.normal(size=TRUE.shape) * [0.3, 0.1, 0.1]
    found = model(moved, np.full(5, 0.5), np.ones(5))
    names = ("specimen.positions", "specimen.debye_waller", "specimen.occupancy")
    optimiser = jp.per_part({name: optax.adam(optax.cosine_decay_schedule(0.05, 250)) for name in names})
    step = jp.make_step(jp.misfit(poisson), optimiser)
    state = jp.init_state(optimiser, found)
    first = None
    for _ in range(250):
        found, state, info = step(found, state, batch)
        first = info["loss"] if first is None else first
    assert info["loss"] < 1e-4 * first
    error = np.asarray(found.specimen.positions) - TRUE
    assert np.abs(error[:, 1:]).max() < 0.002  # Å, from up to 0.12
    assert np.abs(error[:, 0]).max() < 0.1  # Å along the beam, from up to 0.7: by slices of 1 Å
    np.testing.assert_allclose(found.specimen.occupancy, [1, 1, 1, 1, 0.5], atol=0.02)
    np.testing.assert_allclose(found.specimen.debye_waller, [0.4, 0.7, 0.3, 0.5, 0.6], atol=0.1)
    assert len(jax.tree.leaves(eqx.filter(found.specimen, eqx.is_inexact_array))) == 6
