"""Exact patterns of a weak sine object and a scan over whole periods of it."""

import numpy as np

import jaxptycho as jp
from jaxptycho.direct import Optics
from jaxptycho.physics import aberrations

GRID = jp.Grid((24, 24), 0.5, 80.0)  # a window of 12 Å
SEMIANGLE = 20e-3  # rad, 0.48 1/Å
SIDE = 12  # scan positions along an axis, 1 Å apart
STRENGTH = 1e-6  # rad


def optics(**coefficients):
    """Optics with the aperture of a pixel's edge, as of `aberrations.aperture`."""
    return Optics.of(1e3 * SEMIANGLE, GRID.wavelength, GRID.dk[0], **coefficients)


def waves_of(lens):
    """Spectrum [y, x] of the probe in the middle of its window, zero frequency in the corner."""
    chi = aberrations.phase_surface(lens.aberrations, GRID)
    return np.asarray(aberrations.aperture(GRID, SEMIANGLE) * np.exp(-1j * chi))


def positions(side=SIDE, step=1.0):
    return step * np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 2)


def phase(q, places, shift=0.3):
    """φ(r) = STRENGTH · cos(2πQ·r + shift) with Q = `q`/12 Å."""
    return STRENGTH * np.cos(2 * np.pi * places @ np.array(q) / 12 + shift)


def patterns(lens, q, places, shift=0.3):
    """|F(ψ(r − r_p) e^{iφ(r)})|² in double precision, for every place."""
    spectrum = waves_of(lens)
    ky, kx = (np.asarray(k) for k in GRID.frequencies())
    r = np.stack(np.meshgrid(*[0.5 * np.arange(24)] * 2, indexing="ij"), -1)
    object_ = np.exp(1j * phase(q, r, shift))
    ramps = np.exp(-2j * np.pi * (ky * places[:, 0, None, None] + kx * places[:, 1, None, None]))
    exits = np.fft.ifft2(spectrum * ramps) * object_
    return np.abs(np.fft.fft2(exits)) ** 2
