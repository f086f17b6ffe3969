"""The same batch of shots for every contender: numbers and physics, in NumPy alone."""

import argparse
from typing import NamedTuple

import numpy as np

PIXEL, WAVELENGTH, THICKNESS = 0.2, 0.0197, 20.0  # Å
SEMIANGLE, DEFOCUS, DOSE = 20e-3, 150.0, 1e4  # rad, Å, quanta per shot
EPS = 1e-6  # of the amplitude loss


class Case(NamedTuple):
    """How large a batch is."""

    shots: int
    pixels: int
    slices: int
    modes: int


class Problem(NamedTuple):
    """A specimen, a probe, and what was measured of them."""

    phase: np.ndarray  # [z, y, x] rad
    probe: np.ndarray  # [mode, y, x] √quanta, centre at [N//2, N//2]
    positions: (
        np.ndarray
    )  # [shot, (y, x)] Å from the specimen's pixel [0, 0], of the probe's centre
    counts: np.ndarray  # [shot, y, x], zero frequency in the corner


def make_problem(case: Case) -> Problem:
    """A random specimen twice as wide as a window, and noise about what an empty one shows."""
    rng, n = np.random.default_rng(0), case.pixels
    phase = rng.normal(0, 0.05, (case.slices, 2 * n, 2 * n)).astype(np.float32)
    k = np.fft.fftfreq(n, PIXEL)
    k2 = k[:, None] ** 2 + k**2
    lens = (k2 < (SEMIANGLE / WAVELENGTH) ** 2) * np.exp(-1j * np.pi * WAVELENGTH * DEFOCUS * k2)
    order = np.arange(case.modes)[:, None, None]
    spectra = (
        lens * np.exp(2j * np.pi * order * k / k.max() / 2) / (1 + order)
    )  # modes beside one another, ever fainter
    spectra *= np.sqrt(DOSE / np.sum(np.abs(spectra) ** 2))
    probe = np.fft.fftshift(np.fft.ifft2(spectra, norm="ortho"), axes=(1, 2)).astype(np.complex64)
    positions = rng.uniform(n // 2 + 1, 3 * n // 2 - 1, (case.shots, 2)) * PIXEL
    counts = rng.poisson(np.sum(np.abs(spectra) ** 2, 0), (case.shots, n, n)).astype(np.uint16)
    return Problem(phase, probe, positions, counts)


def case_arguments(about: str) -> argparse.ArgumentParser:
    """A command line that begins with a case; `case_of` reads it."""
    parser = argparse.ArgumentParser(description=about)
    for name in Case._fields:
        parser.add_argument(name, type=int)
    return parser


def case_of(args) -> Case:
    """The case on a command line."""
    return Case(*(getattr(args, name) for name in Case._fields))
