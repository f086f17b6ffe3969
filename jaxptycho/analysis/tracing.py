"""Atoms traced in a volume, for refinement with the same views."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from scipy.ndimage import gaussian_filter

from ..parts.atoms import Atoms
from ..parts.indexed import plain
from ..parts.volume import Volume
from ..physics.mean_potential import atoms_potential
from ..physics.types import Numbers
from .peaks import find_peaks, fit_peaks
from .species import species_by_ratio

APART = 1.5  # Å, smallest distance of two peaks
MIN_OCCUPANCY = 0.5  # smallest peak or occupancy of an atom, relative to the lightest element


def atoms_of(
    volume: Volume,
    elements: Sequence[str],
    threshold: float | None = None,
    distance: float = APART,
    *,
    smooth: float | None = None,
    debye_waller: float = 0.5,
    parametrisation: str = "lobato",
) -> Atoms:
    """Atoms of a reconstructed volume, to replace it in a model: same views, same slices.

    Gaussians are fitted to maxima above `threshold` [V], `distance` [Å] apart (`find_peaks`), and
    their integrals determine the elements: those of isolated atoms of the `elements`, fitted in
    the same way (`lone_integrals`), are expected up to a common factor. The default threshold is
    half the peak of an atom of the lightest element if the highest peak is one of the heaviest,
    for peaks of equal width. Every atom gets the same `debye_waller` [Å²], as the width of peaks
    is dominated by the resolution; refine it, and positions, from patterns with
    `per_part({"specimen.positions": …, "specimen.debye_waller": …})`, and occupancies, by which
    `named_anew` corrects the elements.
    """
    expected = lone_integrals(elements, volume.voxel, distance, debye_waller, parametrisation)
    potential = np.asarray(volume.seen, float)
    if threshold is None:
        highest = (
            potential
            if smooth is None
            else gaussian_filter(potential, smooth / np.array(volume.voxel))
        )
        threshold = (
            MIN_OCCUPANCY * float(highest.max()) * min(expected.values()) / max(expected.values())
        )
    peaks = find_peaks(potential, volume.voxel, threshold, distance, smooth=smooth)
    peaks = peaks.where(peaks.integral > 0)
    if not len(peaks.amplitude):
        raise ValueError(
            f"no atom was found: no voxel exceeds {threshold} V, the volume reaches "
            f"{potential.max():.4g} V; lower the threshold"
        )
    symbols = species_by_ratio(peaks.integral, expected)
    axis = [n // 2 * step for n, step in zip(potential.shape, volume.voxel, strict=True)]
    numbers = [atomic_numbers[symbol] for symbol in symbols]
    return in_place(volume, numbers, peaks.positions - axis, debye_waller, parametrisation)


def in_place(
    volume: Volume,
    numbers: Sequence[int],
    places: Numbers,
    debye_waller: float = 0.5,
    parametrisation: str = "lobato",
) -> Atoms:
    """Atoms at `places` (z, y, x) [Å] from the tilt axis, seen by the views of a volume in its
    slices.
    """
    frame = volume.frame
    height = (
        frame.depth.middle + 0.5
    ) * frame.depth.step  # depth of the axis below the entrance face
    return Atoms(
        numbers,
        jnp.asarray(places + np.array([height, 0.0, 0.0]), volume.potential.dtype),
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


def lone_integrals(
    elements: Sequence[str],
    voxel: Any,
    radius: float,
    debye_waller: float = 0.5,
    parametrisation: str = "lobato",
) -> dict[str, float]:
    """Integral [V·Å³] of the Gaussian that `find_peaks` fits to an isolated atom of each element.

    `radius` [Å] is that of the windows. Most of the forward scattering of an atom is due to its
    wide, faint rim, which a fit attributes to the background: the integrals of O and Al have the
    ratio 1.3, their scattering factors at k = 0 the ratio 2.9.
    """
    unknown = [name for name in elements if atomic_numbers.get(name, 0) < 1]
    if unknown:
        raise ValueError(
            f"no element is called {', '.join(unknown)}; give chemical symbols such as Pt"
        )
    depth, rows, columns = (2 * int(np.ceil(2 * radius / step)) for step in voxel)
    middle = np.array([[depth, rows, columns]]) // 2
    here = np.zeros((1, 3))
    vibration = np.array([debye_waller])
    found = {}
    for name in elements:
        number = np.array([atomic_numbers[name]])
        lone = atoms_potential(
            number, here, vibration, (depth, rows, columns), voxel, parametrisation
        )
        found[name] = float(fit_peaks(lone, voxel, middle, radius).integral[0])
    return found


def named_anew(atoms: Atoms, elements: Sequence[str], voxel: Any) -> Atoms:
    """Fully occupied atoms from refined occupancies, each of the element of equal scattering.

    The criterion is the integral of an isolated atom on voxels of `voxel` [Å] times the occupancy;
    atoms below half of the lightest element's integral are removed.
    """
    expected = lone_integrals(
        [*elements, *(chemical_symbols[z] for z in set(atoms.numbers))], voxel, APART
    )
    lone = np.array([expected[chemical_symbols[z]] for z in atoms.numbers])
    strength = np.asarray(plain(atoms.occupancy), float) * lone
    kept = np.flatnonzero(strength >= MIN_OCCUPANCY * min(expected[name] for name in elements))
    if not len(kept):
        raise ValueError(
            f"none of {len(strength)} atoms scatters half as much as the lightest of "
            f"{', '.join(elements)}; refine their occupancies more slowly, or name the lighter "
            "elements that there are"
        )
    symbols = species_by_ratio(
        strength[kept], {name: expected[name] for name in elements}, common=False
    )
    return replace(
        atoms,
        numbers=[atomic_numbers[symbol] for symbol in symbols],
        positions=atoms.positions[kept],
        debye_waller=atoms.debye_waller[kept],
        occupancy=jnp.ones(len(kept), atoms.occupancy.dtype),
    )
