"""The forward model against abTEM, which shares no code with it.

abTEM's axes are (x, y) where ours are (y, x), so what enters and leaves it is transposed.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import (
    AberratedProbe,
    AngularSpectrum,
    BandLimited,
    FreeScan,
    Fresnel,
    Grid,
    Model,
    PerShot,
    PotentialSlices,
    predict,
)

abtem = pytest.importorskip("abtem")

N, PIXEL, VOLTAGE, SEMIANGLE = 64, 0.15, 80.0, 25e-3
GRID = Grid((N, N), PIXEL, voltage_kv=VOLTAGE)
POSITIONS = np.array([[2.0, 3.1], [4.83, 4.8], [7.21, 1.37]])  # Å, (y, x), off the pixels
THICKNESS = (12.0, 20.0, 16.0)
LENS = {"C10": -90.0, "C12": 20.0, "phi12": 0.5, "C30": 1e6}


def potential(smooth: float):
    """Projected potential [V·Å] of a few Gaussian atoms of width `smooth` [Å] in three slices."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:N, :N] * PIXEL
    extent = N * PIXEL
    slices = np.zeros((3, N, N))
    for layer in slices:
        for cy, cx in rng.uniform(0, extent, (8, 2)):
            dy, dx = ((d + extent / 2) % extent - extent / 2 for d in (y - cy, x - cx))
            layer += rng.uniform(500, 1500) * np.exp(-(dy**2 + dx**2) / (2 * smooth**2))
    return slices


def patterns_of_abtem(projected, **settings):
    """Diffraction patterns [shot, ky, kx], zero frequency in the corner, each summing to 1."""
    fixed = {
        "precision": "float64",
        "fft": "numpy",
        "dask.lazy": False,
        "diagnostics.progress_bar": False,
    }
    with abtem.config.set({**fixed, **settings}):
        probe = abtem.Probe(
            semiangle_cutoff=1e3 * SEMIANGLE,
            energy=1e3 * VOLTAGE,
            gpts=N,
            sampling=PIXEL,
            aberrations=LENS,
        )
        array = abtem.PotentialArray(projected.transpose(0, 2, 1), list(THICKNESS), sampling=PIXEL)
        scan = abtem.CustomScan(POSITIONS[:, ::-1])
        exits = probe.multislice(array, scan=scan)
        measured = exits.diffraction_patterns(max_angle="full", fftshift=False).array
    measured = np.asarray(measured).transpose(0, 2, 1)
    return measured / measured.sum((1, 2), keepdims=True)


def patterns(projected, propagator):
    mean = projected / np.reshape(THICKNESS, (-1, 1, 1))
    specimen = PotentialSlices(
        jnp.asarray(mean), None, jnp.array(THICKNESS), (0.0, 0.0), periodic=True
    )
    probe = AberratedProbe(SEMIANGLE, LENS)
    model = Model(probe, specimen, FreeScan(PerShot(jnp.asarray(POSITIONS))), GRID, propagator)
    predicted = np.asarray(eqx.filter_jit(predict)(model, np.arange(len(POSITIONS))))
    return predicted / predicted.sum((1, 2), keepdims=True)


def amplitude_error(ours, theirs):
    return np.linalg.norm(np.sqrt(ours) - np.sqrt(theirs)) / np.linalg.norm(np.sqrt(theirs))


def test_patterns_of_a_thick_specimen_are_those_of_abtem():
    """Sharp atoms, no band limit in either."""
    projected = potential(0.2)
    theirs = patterns_of_abtem(projected, **{"antialias.cutoff": 4.0, "antialias.taper": 0.0})
    assert amplitude_error(patterns(projected, Fresnel()), theirs) < 1e-4
    vacuum = patterns(0 * projected, Fresnel())
    assert amplitude_error(vacuum, theirs) > 0.1  # the specimen is not a trifle


def test_patterns_within_the_band_limit_are_those_of_abtem():
    """Smooth atoms, 2/3 band limit in both (abTEM also limits the transmissions)."""
    projected = potential(0.45)
    theirs = patterns_of_abtem(projected)
    assert amplitude_error(patterns(projected, BandLimited(Fresnel())), theirs) < 1e-3


def test_wrong_defocus_sign_or_propagator_would_show():
    projected = potential(0.2)
    theirs = patterns_of_abtem(projected, **{"antialias.cutoff": 4.0, "antialias.taper": 0.0})
    flipped = patterns(projected[::-1], Fresnel())
    assert amplitude_error(flipped, theirs) > 1e-2
    assert 1e-4 < amplitude_error(patterns(projected, AngularSpectrum()), theirs) < 1e-2
