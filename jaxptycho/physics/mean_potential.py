"""Mean potential of known atoms in every voxel: the ideal result of a reconstruction."""

import numpy as np
import scipy
from jaxtyping import Float, Int

from .scattering import VOLT_ANGSTROM2, scattering_factor
from .types import Numbers


def atoms_potential(
    numbers: Int[np.ndarray, " atom"],
    positions: Float[np.ndarray, "atom 3"],
    debye_waller: Float[np.ndarray, " atom"],
    shape: tuple[int, int, int],
    voxel: Numbers,
    parametrisation: str = "lobato",
    occupancy: Float[np.ndarray, " atom"] | float = 1.0,
) -> Float[np.ndarray, "z y x"]:
    """Potential [V] of atoms at (z, y, x) [Å] from the central voxel [n//2, …].

    Fourier series Σ f(k) e^{−Bk²/4 − 2πik·r} up to the frequencies of the voxels, hence without
    an average over voxels, with B = 8π²⟨u²⟩ [Å²] of every atom. The series is periodic, so atoms
    outside the volume are omitted. `voxel` [Å] is one number or (z, y, x); `occupancy` weights
    every atom.
    """
    voxel = np.broadcast_to(np.asarray(voxel, float), 3)
    places = positions / voxel + np.array(shape) // 2
    inside = ((places > -0.5) & (places < np.array(shape) - 0.5)).all(1)
    kinds, own = np.unique(
        np.stack([numbers, debye_waller], 1)[inside], axis=0, return_inverse=True
    )
    steps = [scipy.fft.fftfreq(shape[0]), scipy.fft.fftfreq(shape[1]), scipy.fft.rfftfreq(shape[2])]
    waves = [
        np.exp(-2j * np.pi * np.outer(k, p)) for k, p in zip(steps, places[inside].T, strict=True)
    ]
    waves[0] = waves[0] * np.broadcast_to(occupancy, len(numbers))[inside]
    kz, ky, kx = (k / v for k, v in zip(steps, voxel, strict=True))
    across = ky[:, None] ** 2 + kx**2

    def plane(kz: float | np.floating, along: np.ndarray) -> np.ndarray:
        total = np.zeros(across.shape, complex)
        k2 = across + kz**2
        for kind, (number, b) in enumerate(kinds):
            rows, columns = (wave[:, own == kind] for wave in waves[1:])
            factor = scattering_factor(int(number), k2, parametrisation) * np.exp(-b / 4 * k2)
            total += factor * ((along[own == kind] * rows) @ columns.T)
        return total

    spectrum = np.stack([plane(*one) for one in zip(kz, waves[0], strict=True)])
    return VOLT_ANGSTROM2 / np.prod(voxel) * np.asarray(scipy.fft.irfftn(spectrum, shape))
