"""Positions and intensities of held-out shots, from those of their neighbours."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.runs.held_out import interpolated, interpolation


def test_a_linear_map_of_the_scan_reaches_the_held_out_shots():
    counts, positions = blobs(side=8, dose=2e3)
    data = jp.Dataset(counts, positions, GRID, about=ABOUT)
    learn, held = (shots[0] for shots in jp.split(data, 0.1))
    model = jp.first_model(data)
    true = np.asarray(model.scan.positions.values) @ np.array([[1.03, 0.02], [-0.05, 0.98]]) + 0.7
    seen = np.array(model.scan.positions.values)
    seen[learn] = true[learn]
    moved = eqx.tree_at(lambda m: m.scan.positions.values, model, jnp.asarray(seen))
    found = interpolated(moved, interpolation(data, learn, held))
    np.testing.assert_allclose(found.scan.positions.values, true, atol=1e-6)
