"""From a volume to atoms that the same views refine."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers
from scipy.ndimage import gaussian_filter

from ..parts.atoms import Atoms
from ..parts.volume import Volume
from ..physics.scattering import VOLT_ANGSTROM2, scattering_factor
from .peaks import find_peaks
from .species import species_by_integral


def atoms_of(
    volume: Volume,
    elements: Sequence[str],
    threshold: float | None = None,
    distance: float = 1.5,
    *,
    smooth: float | None = None,
    debye_waller: float = 0.5,
    parametrisation: str = "lobato",
) -> Atoms:
    """The atoms of a reconstructed volume, in its place in a model: same views, same slices.

    Gaussians are fitted to maxima above `threshold` [V], `distance` [Å] apart (`find_peaks`), and their integrals,
    by what the scattering factors of `elements` lead to expect, tell the elements (`species_by_integral`). Without a
    threshold it is half of what an atom of the lightest element has where the highest peak is of the heaviest, all
    peaks being as wide as the resolution makes them. Every atom
    gets the same `debye_waller` [Å²], as the width of peaks says more of the resolution; refine it, and positions,
    from the diffraction with `per_part({"specimen.positions": …, "specimen.debye_waller": …})`.
    """
    unknown = [name for name in elements if atomic_numbers.get(name, 0) < 1]
    if unknown:
        raise ValueError(f"no element is called {', '.join(unknown)}; give chemical symbols such as Pt")
    numbers = {name: atomic_numbers[name] for name in elements}
    expected = {
        name: VOLT_ANGSTROM2 * float(scattering_factor(number, np.zeros(()), parametrisation))
        for name, number in numbers.items()
    }
    potential = np.asarray(volume.seen, float)
    if threshold is None:
        highest = potential if smooth is None else gaussian_filter(potential, smooth / np.array(volume.voxel))
        threshold = float(highest.max()) * min(expected.values()) / max(expected.values()) / 2
    peaks = find_peaks(potential, volume.voxel, threshold, distance, smooth=smooth)
    peaks = peaks.where(peaks.amplitude > 0)
    if not len(peaks.amplitude):
        raise ValueError(
            f"no atom stands out: nothing exceeds {threshold} V, the volume reaches {potential.max():.4g} V; "
            "lower the threshold"
        )
    species = species_by_integral(peaks.integral, expected)
    frame = volume.frame
    height = (frame.depth.middle + 0.5) * frame.depth.step  # of the axis below the entrance face
    axis = [n // 2 * step for n, step in zip(potential.shape, volume.voxel, strict=True)]
    places = peaks.positions - axis + np.array([height, 0.0, 0.0])
    return Atoms(
        [numbers[symbol] for symbol in species.symbols],
        jnp.asarray(places, volume.potential.dtype),
        (frame.rows.count, frame.columns.count),
        frame.thickness,
        frame.count,
        tuple(-part.middle * part.step for part in (frame.rows, frame.columns)),
        debye_waller,
        parametrisation=parametrisation,
        tilt=volume.tilt,
        angles=volume.angles,
        shift=volume.shift,
        axis=height,
    )
