"""Atoms of a volume against the true ones: ground truth, tracing and comparison."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree

from ..analysis.assignment import AtomComparison, Score, compare_atoms
from ..analysis.maxima import local_maxima
from ..analysis.peaks import fit_peaks
from ..analysis.species import species_by_integral
from ..physics.mean_potential import atoms_potential
from ..physics.scattering import scattering_factor

# standard deviation [resolutions] of the Gaussian that halves the contrast at the resolution,
# √(ln2/2)/π
HALF_CONTRAST = 0.187
MIN_BLUR = 0.75  # voxels, smallest standard deviation of that Gaussian
MIN_HEIGHT = 0.6  # of a peak, in heights of the lightest element's atoms
MAX_PEAKS_PER_ATOM = 3  # per true atom: a poor volume has a maximum in every corner
MIN_SEPARATION = 0.75  # of two peaks, in least distances of true atoms
BLIND_SEPARATION = 1.5  # Å between two peaks without knowledge of the atoms
MIN_VOLUME_PER_ATOM = 5.0  # Å³; diamond has 5.7


class TrueAtoms(NamedTuple):
    """Atoms of a simulated specimen."""

    numbers: np.ndarray
    positions: Float[np.ndarray, "atom 3"]  # Å (z, y, x) from the tilt axis
    debye_waller: np.ndarray  # Å²
    parametrisation: str = "lobato"

    @property
    def symbols(self) -> np.ndarray:
        return np.array([chemical_symbols[z] for z in self.numbers])

    def potential(
        self, shape: tuple[int, ...], voxel: float | np.ndarray
    ) -> Float[np.ndarray, "z y x"]:
        """Potential of a perfect reconstruction [V], about the middle voxel."""
        depth, rows, columns = shape
        own = self.numbers, self.positions, self.debye_waller
        return atoms_potential(*own, (depth, rows, columns), voxel, self.parametrisation)

    def where(self, chosen: np.ndarray) -> "TrueAtoms":
        """Return the `chosen` atoms, by a mask or by their numbers."""
        return self._replace(
            **{
                name: getattr(self, name)[chosen]
                for name in ("numbers", "positions", "debye_waller")
            }
        )

    def inside(self, shape: tuple[int, ...], voxel: np.ndarray) -> np.ndarray:
        """Mask of the atoms inside a volume."""
        sites = np.round(self.positions / voxel).astype(int) + np.array(shape) // 2
        return np.all((sites >= 0) & (sites < shape), axis=1)


class Traced(NamedTuple):
    """Atoms found in a volume, and their comparison with the true ones in it."""

    found: Float[np.ndarray, "atom 3"]  # Å
    species: np.ndarray  # of the found ones
    true: Float[np.ndarray, "atom 3"]  # Å
    comparison: AtomComparison
    classes: dict[str, Score]  # of light and heavy atoms, if there are more than two elements


def true_atoms(truth: dict[str, Any]) -> TrueAtoms:
    """Atoms of a ground truth, with the effect of their vibrations on the mean potential."""
    vibration = np.broadcast_to(truth["vibration_angstrom"], len(truth["atomic_numbers"]))
    places = truth["atom_positions_angstrom"]
    waves = truth.get("parametrisation", "lobato")
    return TrueAtoms(truth["atomic_numbers"], places, 8 * np.pi**2 * vibration**2, waves)


def trace(
    volume: Float[np.ndarray, "z y x"], atoms: TrueAtoms, voxel: np.ndarray, resolution: float
) -> Traced | None:
    """Atoms of a volume beside the true ones; None without agreement.

    The volume is blurred to its `resolution` [Å], at least until a Gaussian is as wide as the
    voxels. The reference height of an element is the median height at its true positions; peaks
    count above MIN_HEIGHT of that of the lightest element, and each is assigned to the element
    whose height is nearest in proportion: a missing wedge stretches the peaks of light atoms more
    than those of heavy ones, so that integrals are less specific.
    """
    middle: Any = np.array(volume.shape) // 2
    sites = np.round(atoms.positions / voxel).astype(int) + middle
    inside = atoms.inside(volume.shape, voxel)
    if not np.isfinite(resolution) or not inside.any():
        return None
    sites = sites[inside]
    numbers = atoms.numbers[inside]
    true = atoms.positions[inside]
    seen = gaussian_filter(volume, np.maximum(HALF_CONTRAST * resolution / voxel, MIN_BLUR))
    distance = max(MIN_SEPARATION * _least_distance(true), 1.5 * voxel.max())
    elements = np.unique(numbers)
    heights = maximum_filter(seen, 3)
    typical = np.array([np.median(heights[tuple(sites[numbers == z].T)]) for z in elements])
    if typical.max() <= 0:
        return None
    visible = elements[typical > 0]  # the others count as missing atoms
    typical = typical[typical > 0]
    radius = max(distance * 2 / 3, voxel.max())  # a wider window includes the neighbours
    highest = local_maxima(seen, voxel, MIN_HEIGHT * typical.min(), distance)
    maxima = highest[: MAX_PEAKS_PER_ATOM * len(true)]
    peaks = fit_peaks(seen, voxel, maxima, radius)
    peaks = peaks._replace(positions=peaks.positions - middle * voxel).where(peaks.integral > 0)
    found = np.clip(
        np.round(peaks.positions / voxel).astype(int) + middle, 0, np.array(volume.shape) - 1
    )
    species = visible[np.argmin(np.abs(np.log(heights[tuple(found.T)][:, None] / typical)), axis=1)]
    return match_atoms(peaks.positions, species, atoms.where(inside))


def match_atoms(found: np.ndarray, numbers: Sequence[int] | np.ndarray, atoms: TrueAtoms) -> Traced:
    """Atoms of these `numbers` at positions `found` [Å] beside the true ones."""
    symbols = np.array([chemical_symbols[z] for z in numbers])
    elements = np.unique(atoms.numbers)
    compared = compare_atoms(
        found, atoms.positions, found_species=symbols, true_species=atoms.symbols
    )
    classes: dict[str, Score] = {}
    if len(elements) > 2:
        gap = 1 + np.argmax(elements[1:] / elements[:-1])  # largest ratio of atomic numbers
        split = elements[gap]
        names = [
            np.where(np.asarray(zs) < split, "light", "heavy") for zs in (numbers, atoms.numbers)
        ]
        classes = compare_atoms(
            found, atoms.positions, found_species=names[0], true_species=names[1]
        ).elements
    return Traced(found, symbols, atoms.positions, compared, classes)


def trace_blind(
    volume: Float[np.ndarray, "z y x"], atoms: TrueAtoms, voxel: np.ndarray
) -> Traced | None:
    """Atoms of a volume, found from the names of its elements only.

    None if fewer peaks than elements are found. Maxima of the slightly blurred volume,
    BLIND_SEPARATION apart and no denser than any matter, count above the level that one in a
    hundred of the inverted volume's exceeds, and above MIN_HEIGHT of the lightest element's
    share of the highest peak, by forward scattering. Integrals identify the elements.
    """
    middle: Any = np.array(volume.shape) // 2
    inside = atoms.inside(volume.shape, voxel)
    numbers = atoms.numbers[inside]
    true = atoms.positions[inside]
    if not len(numbers):
        return None
    elements = np.unique(numbers)
    names = [chemical_symbols[z] for z in elements]
    forward = [
        float(scattering_factor(int(z), np.zeros(()), atoms.parametrisation)) for z in elements
    ]
    seen = gaussian_filter(volume, MIN_BLUR)
    distance = max(BLIND_SEPARATION, 1.5 * voxel.max())
    most = int(volume.size * np.prod(voxel) / MIN_VOLUME_PER_ATOM)
    depths = -seen[tuple(local_maxima(-seen, voxel, 0.0, distance).T)]
    noise = np.quantile(depths, 0.99) if len(depths) else 0.0
    level = max(noise, MIN_HEIGHT * seen.max() * min(forward) / max(forward))
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
    """Least distance of two atoms [Å]; 2 Å if they are further apart, or for one atom."""
    return min(2.0, *KDTree(places).query(places, 2)[0][:, 1])


def atom_rows(
    traced: Traced | None, blind: Traced | None, refined: Traced | None = None
) -> dict[str, str]:
    """Precision, recall, F1, RMSD and bias of all atoms and of every element.

    For atoms identified by the reference heights of their elements, for those found without
    knowledge of any, and for those of which the result consists.
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
        f"bias of {name}": format_numbers(score.bias, "+.2g", "Å (z, y, x)")
        for name, score in scores.items()
    }
    return {name: _words(score) for name, score in scores.items()} | biases | rows | made


def _words(score: Score) -> str:
    parts = (
        f"F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f} of "
        f"{score.true}"
    )
    return f"{parts}, RMSD {format_numbers(score.rmsd, '.2g', 'Å (z, y, x)')}"


def format_numbers(values: Iterable[float], form: str, unit: str) -> str:
    """Numbers with their unit."""
    return ", ".join(f"{value:{form}}" for value in values) + f" {unit}"
