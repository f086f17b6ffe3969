"""Exact patterns of a weak sine object, and a scan over whole periods of it."""

import jax.numpy as jnp
import numpy as np

import jaxptycho as jp
from jaxptycho import direct
from jaxptycho.physics import aberrations

GRID = jp.Grid((24, 24), 0.5, 80.0)  # a window of 12 Å
SEMIANGLE = 20e-3  # rad, 0.48 1/Å
SIDE = 12  # scan positions along an axis, 1 Å apart
STRENGTH = 1e-6  # rad
LENSES = {
    "underfocus": {"defocus": 150.0},
    "overfocus": {"defocus": -150.0},
    "astigmatism": {"defocus": -100.0, "C12": 40.0, "phi12": 0.3},
    "all orders": {"defocus": 100.0, "C21": 2e3, "phi21": 1.0, "C30": 1e5, "C45": 1e6, "C56": 1e7},
}


def optics(**coefficients):
    """Optics whose aperture has the edge of `aberrations.aperture`, of one structure for `jit`."""
    given = dict.fromkeys(("defocus", "C12", "C21", "C30", "C45", "C56"), 0.0) | coefficients
    return direct.Optics.of(1e3 * SEMIANGLE, GRID.wavelength, GRID.dk[0], **given)


def positions(side=SIDE, step=1.0):
    """Positions [shot, 2] of a square scan [Å]."""
    return step * np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 2)


def phase(q, places):
    """φ(r) = STRENGTH · cos(2πQ·r + 0.3) with Q = `q`/12 Å."""
    return STRENGTH * np.cos(2 * np.pi * places @ np.array(q) / 12 + 0.3)


def patterns(lens, q, places):
    """|F(ψ(r − r_p) e^{iφ(r)})|² in double precision, for every place."""
    chi = aberrations.phase_surface(lens.aberrations, GRID)
    spectrum = np.asarray(aberrations.aperture(GRID, SEMIANGLE) * np.exp(-1j * chi))
    ky, kx = (np.asarray(k) for k in GRID.frequencies())
    r = np.stack(np.meshgrid(*[0.5 * np.arange(24)] * 2, indexing="ij"), -1)
    ramps = np.exp(-2j * np.pi * (ky * places[:, 0, None, None] + kx * places[:, 1, None, None]))
    exits = np.fft.ifft2(spectrum * ramps) * np.exp(1j * phase(q, r))
    return np.abs(np.fft.fft2(exits)) ** 2


def block(intensities, places):
    """All patterns as one block."""
    n = len(places)
    return direct.Block(np.arange(n), places, intensities, np.ones(n))


def pixels():
    """Flat indices of the bright field and their frequencies, as of `bright_field_of`."""
    k = direct.bright_field.frequencies_from(GRID)
    inside = np.hypot(k[..., 0], k[..., 1]) < SEMIANGLE / GRID.wavelength + 0.5 * GRID.dk[0]
    index = np.flatnonzero(inside).astype(np.int32)
    return index, k.reshape(-1, 2)[index]


def stack(intensities, places):
    """Kept bright field in double precision."""
    index, k = pixels()
    counts = jnp.asarray(np.reshape(intensities, (len(places), -1))[:, index])
    return direct.BrightFieldStack(counts, places, k, np.ones(len(places), bool), GRID)


def measured(picture, q):
    """Coefficient of the sine in a picture, relative to that of φ, and the stated transfer."""
    truth = np.fft.rfft2(phase(q, picture.grid.places()))
    there = np.unravel_index(np.argmax(np.abs(truth)), truth.shape)
    return picture.spectrum[there] / truth[there], picture.transfer[there]
