"""Shots whose recorded positions are far from the true ones."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scans import blob_model, measured_blobs

from jaxptycho import PerShot
from jaxptycho.inverse.position_search import locate_shots, search_positions, worst_shots
from jaxptycho.model import probe_positions


def displaced(by):
    """A model with some shots displaced by whole pixels, its data, and the true positions."""
    true = blob_model(side=7, dose=1e5)
    places = probe_positions(true)
    moved = np.zeros_like(places)
    for shot, offset in by.items():
        moved[shot] = np.multiply(offset, true.grid.pixel)
    scan = true.scan.move(PerShot(jnp.asarray(moved)))
    model = eqx.tree_at(lambda m: m.scan, true, scan)
    return model, measured_blobs(true, places + moved, seed=0), places


WRONG = {10: (3, -4), 24: (-5, 2), 31: (0, 6)}


def test_shots_at_wrong_places_are_found_where_they_belong():
    model, data, places = displaced(WRONG)
    suspects = worst_shots(model, data, 0.1)
    assert set(WRONG) <= set(suspects)
    found = probe_positions(search_positions(model, data, suspects, 4.0))
    np.testing.assert_allclose(found[list(WRONG)], places[list(WRONG)], atol=1e-4)
    np.testing.assert_allclose(found, places, atol=max(data.grid.pixel) + 1e-4)


def test_no_shot_is_placed_beyond_reach():
    model, data, places = displaced(WRONG)
    found = probe_positions(search_positions(model, data, np.array([10, 24, 31]), 1.5))
    away = np.hypot(*(found - data.positions[0]).T)
    assert away.max() <= 1.5 + 1e-4
    assert not np.allclose(found[10], places[10], atol=0.1)


def test_a_round_leaves_suspects_out_and_then_takes_all():
    model, data, places = displaced(WRONG)
    used = []

    def refine(model, shots):
        used.append(len(shots))
        return model

    found = probe_positions(locate_shots(model, data, refine, 4.0, rounds=1, suspects=0.1))
    assert used == [49 - 5, 49]
    np.testing.assert_allclose(found[list(WRONG)], places[list(WRONG)], atol=1e-4)
