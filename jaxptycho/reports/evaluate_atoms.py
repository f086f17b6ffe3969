"""The atoms of a volume against the true ones: what a simulation was made of, what is traced, how they compare."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree

from ..analysis.assignment import AtomComparison, Score, compare_atoms
from ..analysis.peaks import fit_peaks, local_maxima
from ..analysis.species import species_by_integral
from ..physics.mean_potential import atoms_potential
from ..physics.scattering import scattering_factor

HALF = 0.187  # standard deviation [resolutions] of the Gaussian that halves the contrast at the resolution, √(ln2/2)/π
SMOOTH = 0.75  # voxels, the least of that Gaussian
LEAST = 0.6  # of the height of the lightest element's atoms, from which a peak counts
MOST = 3  # times as many peaks as true atoms: a poor volume has a maximum in every corner
APART = 0.75  # of the least distance of true atoms, within which there are no two peaks
BLIND_APART = 1.5  # Å between two peaks where nothing is known of the atoms
DENSEST = 5.0  # Å³ for an atom: diamond has 5.7


class TrueAtoms(NamedTuple):
    """What a simulation was made of."""

    numbers: np.ndarray
    positions: Float[np.ndarray, "atom 3"]  # Å (z, y, x) from the tilt axis
    debye_waller: np.ndarray  # Å²
    parametrisation: str = "lobato"

    @property
    def symbols(self) -> np.ndarray:
        return np.array([chemical_symbols[z] for z in self.numbers])

    def potential(self, shape: tuple[int, ...], voxel) -> Float[np.ndarray, "z y x"]:
        """What a perfect reconstruction shows [V], about the middle voxel."""
        depth, rows, columns = shape
        own = self.numbers, self.positions, self.debye_waller
        return atoms_potential(*own, (depth, rows, columns), voxel, self.parametrisation)

    def where(self, chosen) -> "TrueAtoms":
        """Only the `chosen` atoms, by a mask or by their numbers."""
        return self._replace(
            **{
                name: getattr(self, name)[chosen]
                for name in ("numbers", "positions", "debye_waller")
            }
        )

    def inside(self, shape: tuple[int, ...], voxel) -> np.ndarray:
        """Which atoms lie in a volume."""
        sites = np.round(self.positions / voxel).astype(int) + np.array(shape) // 2
        return ((sites >= 0) & (sites < shape)).all(1)


class Traced(NamedTuple):
    """Atoms found in a volume, and how they compare with the true ones in it."""

    found: Float[np.ndarray, "atom 3"]  # Å
    species: np.ndarray  # of the found ones
    true: Float[np.ndarray, "atom 3"]  # Å
    comparison: AtomComparison
    classes: dict[str, Score]  # of light and heavy atoms, where there are more than two elements


def true_atoms(truth: dict[str, Any]) -> TrueAtoms:
    """The atoms of a truth, with what their vibrations do to the mean potential."""
    vibration = np.broadcast_to(truth["vibration_angstrom"], len(truth["atomic_numbers"]))
    places, waves = truth["atom_positions_angstrom"], truth.get("parametrisation", "lobato")
    return TrueAtoms(truth["atomic_numbers"], places, 8 * np.pi**2 * vibration**2, waves)


def trace(volume, atoms: TrueAtoms, voxel, resolution: float) -> Traced | None:
    """The atoms of a volume beside the true ones; None where nothing agrees.

    The volume is blurred to its own `resolution` [Å], but so much that a Gaussian is no longer sharper than the
    voxels. What an element's atoms look like there is the median height at their true places; peaks count above LEAST
    of that of the lightest element, and each is of the element whose height is nearest in proportion: a missing
    wedge stretches the peaks of light atoms more than those of heavy ones, so that integrals tell less.
    """
    middle: Any = np.array(volume.shape) // 2
    sites = np.round(atoms.positions / voxel).astype(int) + middle
    inside = atoms.inside(volume.shape, voxel)
    if not np.isfinite(resolution) or not inside.any():
        return None
    sites, numbers, true = sites[inside], atoms.numbers[inside], atoms.positions[inside]
    seen = gaussian_filter(volume, np.maximum(HALF * resolution / voxel, SMOOTH))
    distance = max(APART * _least_distance(true), 1.5 * voxel.max())
    elements = np.unique(numbers)
    heights = maximum_filter(seen, 3)
    typical = np.array([np.median(heights[tuple(sites[numbers == z].T)]) for z in elements])
    if typical.max() <= 0:
        return None
    visible, typical = (
        elements[typical > 0],
        typical[typical > 0],
    )  # the others are missed, one by one
    radius = max(distance * 2 / 3, voxel.max())  # a wider window takes in the neighbours
    maxima = local_maxima(seen, voxel, LEAST * typical.min(), distance)[: MOST * len(true)]
    peaks = fit_peaks(seen, voxel, maxima, radius)
    peaks = peaks._replace(positions=peaks.positions - middle * voxel).where(peaks.integral > 0)
    found = np.clip(
        np.round(peaks.positions / voxel).astype(int) + middle, 0, np.array(volume.shape) - 1
    )
    species = visible[np.argmin(np.abs(np.log(heights[tuple(found.T)][:, None] / typical)), axis=1)]
    return match_atoms(peaks.positions, species, atoms.where(inside))


def match_atoms(found, numbers, atoms: TrueAtoms) -> Traced:
    """Atoms of these `numbers` at places `found` [Å] beside the true ones."""
    symbols, elements = np.array([chemical_symbols[z] for z in numbers]), np.unique(atoms.numbers)
    compared = compare_atoms(
        found, atoms.positions, found_species=symbols, true_species=atoms.symbols
    )
    classes: dict[str, Score] = {}
    if len(elements) > 2:
        split = elements[
            1 + np.argmax(elements[1:] / elements[:-1])
        ]  # where atomic numbers are furthest apart
        names = [
            np.where(np.asarray(zs) < split, "light", "heavy") for zs in (numbers, atoms.numbers)
        ]
        classes = compare_atoms(
            found, atoms.positions, found_species=names[0], true_species=names[1]
        ).elements
    return Traced(found, symbols, atoms.positions, compared, classes)


def trace_blind(volume, atoms: TrueAtoms, voxel) -> Traced | None:
    """The atoms of a volume by nothing but the names of its elements; None where fewer peaks than these stand out.

    Maxima of the slightly blurred volume, BLIND_APART Å apart and no denser than any matter, count above what one in
    a hundred of the inverted volume's exceeds, and above LEAST of what the lightest element makes of the highest
    peak, by forward scattering. Integrals tell the elements.
    """
    middle: Any = np.array(volume.shape) // 2
    inside = atoms.inside(volume.shape, voxel)
    numbers, true = atoms.numbers[inside], atoms.positions[inside]
    if not len(numbers):
        return None
    elements = np.unique(numbers)
    names = [chemical_symbols[z] for z in elements]
    forward = [
        float(scattering_factor(int(z), np.zeros(()), atoms.parametrisation)) for z in elements
    ]
    seen = gaussian_filter(volume, SMOOTH)
    distance, most = (
        max(BLIND_APART, 1.5 * voxel.max()),
        int(volume.size * np.prod(voxel) / DENSEST),
    )
    depths = -seen[tuple(local_maxima(-seen, voxel, 0.0, distance).T)]
    noise = np.quantile(depths, 0.99) if len(depths) else 0.0
    level = max(noise, LEAST * seen.max() * min(forward) / max(forward))
    peaks = fit_peaks(
        seen, voxel, local_maxima(seen, voxel, level, distance)[:most], distance * 2 / 3
    )
    peaks = peaks._replace(positions=peaks.positions - middle * voxel).where(peaks.integral > 0)
    if len(np.unique(peaks.integral)) < len(names):
        return None
    symbols = species_by_integral(peaks.integral, dict(zip(names, forward, strict=True))).symbols
    true_symbols = np.array([chemical_symbols[z] for z in numbers])
    compared = compare_atoms(
        peaks.positions, true, found_species=symbols, true_species=true_symbols
    )
    return Traced(peaks.positions, symbols, true, compared, {})


def _least_distance(places) -> float:
    """Between two atoms [Å]; 2 Å where they are further apart, or one is alone."""
    return min(2.0, *KDTree(places).query(places, 2)[0][:, 1])


def atom_rows(
    traced: Traced | None, blind: Traced | None, refined: Traced | None = None
) -> dict[str, str]:
    """Precision, recall, F1, RMSD and bias of all atoms and of every element.

    Of those counted by what an element looks like at its true places, of those found without knowing any, and of those
    that the result is made of.
    """
    own = {} if refined is None else {"atoms": refined.comparison.overall}
    own |= (
        {}
        if refined is None
        else {f"{name} atoms": score for name, score in refined.classes.items()}
    )
    own |= (
        {}
        if refined is None
        else {f"atoms of {name}": v for name, v in refined.comparison.elements.items()}
    )
    made = {f"{name} of the result": _words(score) for name, score in own.items()}
    unseen = {} if blind is None else {"atoms, found blindly": blind.comparison.overall}
    unseen |= (
        {}
        if blind is None
        else {f"{s}, found blindly": v for s, v in blind.comparison.elements.items()}
    )
    rows = {name: _words(score) for name, score in unseen.items()} or {
        "atoms, found blindly": "none"
    }
    if traced is None:
        return {"atoms": "none traced, for nothing agrees with the truth"} | rows | made
    scores: Mapping[str, Score] = {"atoms": traced.comparison.overall}
    scores |= {f"{name} atoms": score for name, score in traced.classes.items()}
    scores |= {f"atoms of {symbol}": score for symbol, score in traced.comparison.elements.items()}
    biases = {
        f"bias of {name}": in_words(score.bias, "+.2g", "Å (z, y, x)")
        for name, score in scores.items()
    }
    return {name: _words(score) for name, score in scores.items()} | biases | rows | made


def _words(score: Score) -> str:
    parts = f"F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f} of {score.true}"
    return f"{parts}, RMSD {in_words(score.rmsd, '.2g', 'Å (z, y, x)')}"


def in_words(values, form: str, unit: str) -> str:
    """Numbers with their unit."""
    return ", ".join(f"{value:{form}}" for value in values) + f" {unit}"
