"""Sign of a direct phase from the dark field: what has mass scatters beyond the disc.

A rotation of the scan by 180° with the opposite defocus changes the sign of a weak phase and
nothing else. Electrons at large angles are scattered by the same atoms, each of them independently,
blurred by the intensity of the probe, whose transform is H(Q): φ ⋆ |ψ|² and the dark field rise
together. At small angles neighbouring atoms interfere, and ice may outshine a denser protein. Where
sin χ(Q) is small, the electrons that heavy atoms remove from the disc, an amplitude, make the
picture: those frequencies have the sign of the defocus and not that of the phase.
"""

import numpy as np
from scipy.ndimage import map_coordinates

from ..direct.centre_of_mass import intensity_transform
from ..direct.image import DirectImage
from ..direct.transfer import Optics
from ..physics.aberrations import phase_at
from .measured import Measured

LEAST_BLUR = 0.05  # of H(0), below which a frequency says nothing
# of the amplitude over the phase of heavy atoms (Toyoshima & Unwin, Ultramicroscopy 25, 279 (1988))
AMPLITUDE = 0.35


def mass_contrast(phase: DirectImage, dark_field: DirectImage, optics: Optics) -> Measured:
    """Mean cosine of the phase differences of both pictures, positive for the true sign.

    Over frequencies weighted by H; the error is that of pictures that have nothing in common.
    """
    places = dark_field.grid.places()
    entries = (places - phase.grid.origin) @ np.linalg.inv(phase.grid.steps)
    seen = map_coordinates(phase.image, np.moveaxis(entries, -1, 0), order=3)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in seen.shape))
    first, second = (
        np.fft.rfft2((image - image.mean()) * window) for image in (seen, dark_field.image)
    )
    blur = np.real(intensity_transform(optics, dark_field.grid))  # its part that is even in Q
    q = dark_field.grid.frequencies()
    chi = np.asarray(phase_at(optics.aberrations, q[..., 0], q[..., 1], optics.wavelength))
    used = (np.abs(blur) > LEAST_BLUR) & (np.abs(np.tan(chi)) > AMPLITUDE)
    weight = np.where(used, blur, 0.0)
    weight[0, 0] = 0.0
    cross = first * second.conj()
    total = max(float(np.abs(weight).sum()), 1e-30)
    cosine = float(np.sum(weight * cross.real / np.maximum(np.abs(cross), 1e-30))) / total
    error = float(np.sqrt(np.sum(weight**2) / 2)) / total
    source = "phase and dark field, frequency by frequency"
    return Measured(cosine, error if used.any() else float("inf"), "", source)
