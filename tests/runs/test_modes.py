"""Modes of the probe that trials by the held-out loss add, or leave out."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scans import ABERRATIONS, SMALL, blob_model, measured_blobs, sum_of_blobs

import jaxptycho as jp
from jaxptycho.physics.modes import make_modes
from jaxptycho.runs.held_out import clearly_lower

SIZE = 72  # pixels of the specimen
SIDE = 15  # positions
LENS = jp.AberratedProbe(0.02, ABERRATIONS, dose=1e4)


def scan_of_blobs(seed, powers):
    """A model whose probe has modes of these powers."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    phase = sum_of_blobs(y, x, np.random.default_rng(seed).uniform(4, SIZE - 4, (100, 2)))
    specimen = jp.SliceStack(jnp.asarray(phase[None]), None, jnp.zeros(()), jnp.full(2, -7.0))
    modes = make_modes(coherent_wave(), len(powers))
    sizes = jnp.sqrt(jnp.asarray(powers) / jnp.sum(jnp.abs(modes) ** 2, (1, 2)))
    probe = jp.PixelProbe(sizes[:, None, None] * modes)
    return replace(blob_model(side=SIDE, seed=seed), specimen=specimen, probe=probe)


def coherent_wave():
    return jnp.fft.fftshift(jnp.fft.ifft2(LENS.spectrum(SMALL)[0], norm="ortho"))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("powers", [(1e4,), (4e3, 3e3, 3e3)])
def test_modes_are_added_where_the_probe_is_incoherent(powers, seed):
    truth = scan_of_blobs(seed, powers)
    empty = truth.specimen.map_stacks(jnp.zeros_like)
    found = jp.reconstruct(
        measured_blobs(truth, seed=seed),
        replace(truth, specimen=empty, probe=jp.PixelProbe(coherent_wave()[None])),
        hold_out=0.2,
        progress=False,
        devices=1,
        callback=lambda epoch, model, info: True,
    )
    assert (len(found.model.probe.waves) > 1) == (len(powers) > 1)


def test_a_gain_is_clear_beyond_its_scatter():
    others = np.full(8, 10.0)
    scatter = np.array([1, -1, 1, -1, 1, -1, 1, -1])
    assert clearly_lower(others - 1 + 0.1 * scatter, others)
    assert not clearly_lower(others - 1 + 5 * scatter, others)
    assert not clearly_lower(others - 0.1, others)
    assert not clearly_lower(np.full(8, np.inf), others)
