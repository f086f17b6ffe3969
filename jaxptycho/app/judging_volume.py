"""A volume against the truth of a simulated tilt series: where it lies, to which detail it is right, which atoms it shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import KDTree

from ..analysis.assignment import AtomComparison, Score, compare_atoms
from ..analysis.errors import Alignment, alignment_error, probe_fidelity
from ..analysis.peaks import fit_peaks, local_maxima
from ..analysis.potential import atoms_potential
from ..analysis.resolution import (
    FourierCorrelation,
    WedgeCorrelations,
    directional_correlations,
    fixed,
    fourier_correlation,
    wedge_correlations,
)
from ..analysis.shells import taper
from ..analysis.volumes import HANDS, AlignedVolume, align_volume, euler_angles, rotation_matrices
from ..inverse.fields import entries
from ..io.structures import to_ase, write_structure
from ..model import Model, positions
from ..parts.indexed import PerView, select
from ..parts.volume import Volume
from .pictures import probe_modes
from .plots import save
from .plots_atoms import draw_atoms, draw_displacements
from .plots_errors import draw_alignment
from .plots_resolution import draw_correlation, draw_directions
from .plots_volume import draw_directional, draw_power, draw_sections, draw_surfaces

CONE = np.deg2rad(20.0)  # half angle of the directions in the table
WEDGE_DETAIL = 2.0  # Å, to which the correlation in the missing wedge is averaged
HALF = 0.187  # standard deviation [resolutions] of the Gaussian that halves the contrast at the resolution, √(ln2/2)/π
SMOOTH = 0.75  # voxels, the least of that Gaussian
LEAST = 0.6  # of the height of the lightest element's atoms, from which a peak counts
MOST = 3  # times as many peaks as true atoms: a poor volume has a maximum in every corner
APART = 0.75  # of the least distance of true atoms, within which there are no two peaks


class TrueAtoms(NamedTuple):
    """What a simulation was made of."""

    numbers: np.ndarray
    positions: Float[np.ndarray, "atom 3"]  # Å (z, y, x) from the tilt axis
    debye_waller: np.ndarray  # Å²

    @property
    def symbols(self) -> np.ndarray:
        return np.array([chemical_symbols[z] for z in self.numbers])


class Detail(NamedTuple):
    """How a volume correlates with the true one, shell by shell."""

    whole: FourierCorrelation
    directions: dict[str, FourierCorrelation]
    wedge: WedgeCorrelations | None  # None where the tilts leave none


class Traced(NamedTuple):
    """Atoms found in a volume, and how they compare with the true ones in it."""

    found: Float[np.ndarray, "atom 3"]  # Å
    species: np.ndarray  # of the found ones
    true: Float[np.ndarray, "atom 3"]  # Å
    comparison: AtomComparison
    classes: dict[str, Score]  # of light and heavy atoms, where there are more than two elements


def judge_volume(model: Model, truth: dict[str, Any], nominal, folder: Path | None = None) -> dict[str, str]:
    """Gauge, detail, atoms and alignment of a model whose specimen turns, in words.

    `nominal` are the tilts [rad] that the file gives, from which the alignment began.
    """
    if lacking := {"atomic_numbers", "atom_positions_angstrom", "vibration_angstrom"} - set(truth):
        raise ValueError(f"the truth has no {', '.join(sorted(lacking))}; give a file that `jaxptycho simulate` wrote")
    specimen, angles = model.specimen, np.deg2rad(truth["angles_deg"])
    if not isinstance(specimen, Volume) or entries(specimen, PerView) != len(angles):
        raise ValueError(
            f"the truth is a tilt series of {len(angles)} views, the result a {type(specimen).__name__} of "
            f"{entries(specimen, PerView)}; give a result with a Volume of the same views"
        )
    atoms = true_atoms(truth)
    voxel: Any = np.array(specimen.voxel)
    volume = np.asarray(specimen.seen, float)
    gauge: AlignedVolume = align_volume(volume, atoms_potential(*atoms, volume.shape, voxel), voxel)
    hand = HANDS[gauge.mirrored]
    moved = atoms._replace(positions=atoms.positions @ (gauge.rotation @ hand).T + gauge.shift)
    known = atoms_potential(*moved, volume.shape, voxel)  # so that nothing of the result is resampled
    found, true = alignment(model, truth), Alignment(rotation_matrices(angles), np.asarray(truth["shift_angstrom"]))
    tilts = euler_angles(found.rotations)[:, 0]
    curves = detail(volume, known, voxel, (tilts.min(), tilts.max()))
    traced = trace(volume, moved, voxel, curves.whole.resolution(fixed(0.5)))
    error = alignment_error(found._replace(rotations=hand @ found.rotations @ hand), true, voxel.min())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder, volume, known, moved, voxel, gauge.shift, tilts, curves, traced)
        series = {"nominal": alignment_error(_untouched(nominal), true, voxel.min()), "result": error}
        save(draw_alignment(series, np.asarray(nominal)), folder / "alignment.png")
    rows = {"correlation of the potential": f"{np.corrcoef(volume.ravel(), known.ravel())[0, 1]:.4f}"}
    return rows | gauge_rows(gauge) | detail_rows(curves) | atom_rows(traced) | error.words()


def true_atoms(truth: dict[str, Any]) -> TrueAtoms:
    """The atoms of a truth, with what their vibrations do to the mean potential."""
    vibration = np.broadcast_to(truth["vibration_angstrom"], len(truth["atomic_numbers"]))
    return TrueAtoms(truth["atomic_numbers"], truth["atom_positions_angstrom"], 8 * np.pi**2 * vibration**2)


def alignment(model: Model, truth: dict[str, Any]) -> Alignment:
    """How a result sees its specimen, had the illumination stood where it truly did.

    Patterns say where the specimen was under the illumination: a shift of a view's positions, or of the probe in
    its window, is one of the specimen the other way.
    """
    views = range(len(truth["angles_deg"]))
    seen = [select(model.specimen, PerView, view) for view in views]
    angles = [[view.tilt, *(np.zeros(2) if view.angles is None else view.angles)] for view in seen]
    shifts = [
        np.asarray(own.shift, float) - _illuminated(model, truth, view) for view, own in zip(views, seen, strict=True)
    ]
    return Alignment(rotation_matrices(np.array(angles, float)), np.array(shifts))


def _illuminated(model: Model, truth: dict[str, Any], view: int) -> np.ndarray:
    """How far the illumination of a view lies from the true one (y, x) [Å], on average."""
    moved, found, true = np.zeros(2), positions(model, view), truth["positions"][view]
    if found.shape == true.shape:
        moved = np.mean(found - true, axis=0)
    modes = truth["probe"][view]
    if modes.shape[-2:] == model.grid.shape:
        own = probe_modes(select(model, PerView, view)).waves
        moved = moved + probe_fidelity(own, modes, np.array(model.grid.pixel)).shift
    return moved


def _untouched(nominal) -> Alignment:
    tilts = np.asarray(nominal, float)
    angles = np.stack([tilts, 0 * tilts, 0 * tilts], 1)
    return Alignment(rotation_matrices(angles), angles[:, 1:])


def detail(volume, known, voxel, tilts: tuple[float, float]) -> Detail:
    """The shell correlation of two volumes: whole, along the axes, within and outside of the tilts [rad]."""
    window = taper(volume.shape)
    along = directional_correlations(volume, known, voxel, np.eye(3), CONE, window=window)
    wedge = wedge_correlations(volume, known, voxel, tilts, window)
    missing = np.isfinite(wedge.outside.correlation).sum() > 2
    return Detail(
        fourier_correlation(volume, known, voxel, window),
        {f"along {axis}": curve for axis, curve in zip("zyx", along, strict=True)},
        wedge if missing else None,
    )


def trace(volume, atoms: TrueAtoms, voxel, resolution: float) -> Traced | None:
    """The atoms of a volume beside the true ones; None where nothing agrees.

    The volume is blurred to its own `resolution` [Å], but so much that a Gaussian is no longer sharper than the
    voxels. What an element's atoms look like there is the median height at their true places; peaks count above LEAST
    of that of the lightest element, and each is of the element whose height is nearest in proportion: a missing
    wedge stretches the peaks of light atoms more than those of heavy ones, so that integrals tell less.
    """
    middle: Any = np.array(volume.shape) // 2
    sites = np.round(atoms.positions / voxel).astype(int) + middle
    inside = ((sites >= 0) & (sites < volume.shape)).all(1)
    if not np.isfinite(resolution) or not inside.any():
        return None
    sites, numbers, true = sites[inside], atoms.numbers[inside], atoms.positions[inside]
    seen = gaussian_filter(volume, np.maximum(HALF * resolution / voxel, SMOOTH))
    distance = max(APART * _least_distance(true), 1.5 * voxel.max())
    elements = np.unique(numbers)
    heights = maximum_filter(seen, 3)
    typical = np.array([np.median(heights[tuple(sites[numbers == z].T)]) for z in elements])
    if typical.min() <= 0:
        return None
    radius = max(distance * 2 / 3, voxel.max())  # a wider window takes in the neighbours
    maxima = local_maxima(seen, voxel, LEAST * typical.min(), distance)[: MOST * len(true)]
    peaks = fit_peaks(seen, voxel, maxima, radius)
    peaks = peaks._replace(positions=peaks.positions - middle * voxel).where(peaks.integral > 0)
    found = np.clip(np.round(peaks.positions / voxel).astype(int) + middle, 0, np.array(volume.shape) - 1)
    species = elements[np.argmin(np.abs(np.log(heights[tuple(found.T)][:, None] / typical)), axis=1)]
    symbols, true_symbols = (np.array([chemical_symbols[z] for z in zs]) for zs in (species, numbers))
    compared = compare_atoms(peaks.positions, true, found_species=symbols, true_species=true_symbols)
    classes = {}
    if len(elements) > 2:
        split = elements[1 + np.argmax(elements[1:] / elements[:-1])]  # where atomic numbers are furthest apart
        names = [np.where(zs < split, "light", "heavy") for zs in (species, numbers)]
        classes = compare_atoms(peaks.positions, true, found_species=names[0], true_species=names[1]).elements
    return Traced(peaks.positions, symbols, true, compared, classes)


def _least_distance(places) -> float:
    """Between two atoms [Å]; 2 Å where they are further apart, or one is alone."""
    return min(2.0, *KDTree(places).query(places, 2)[0][:, 1])


def gauge_rows(gauge: AlignedVolume) -> dict[str, str]:
    """What was removed before comparing."""
    hand = {"hand": "the other one, z runs backwards (a wrong sign of the tilts?)"} if gauge.mirrored else {}
    return {
        "shift removed": _list(gauge.shift, "+.3g", "Å (z, y, x)"),
        "rotation removed": _list(gauge.angles, "+.3g", "° (about y, x, z)"),
    } | hand


def detail_rows(curves: Detail) -> dict[str, str]:
    """Resolutions where the correlation with the truth falls below 0.5."""
    rows = {"resolution against the truth": f"{_resolution(curves.whole)} (0.5)"}
    rows |= {f"resolution {name}": _resolution(curve) for name, curve in curves.directions.items()}
    if curves.wedge is None:
        return rows
    inside, outside = curves.wedge
    missing = f"{_resolution(outside)}, mean correlation {average(outside, WEDGE_DETAIL):.3f} to {WEDGE_DETAIL:g} Å"
    return rows | {"resolution within the tilts": _resolution(inside), "in the missing wedge": missing}


def _resolution(curve: FourierCorrelation) -> str:
    reached = curve.resolution(fixed(0.5))
    return f"{reached:.4g} Å" if np.isfinite(reached) else "none"


def average(curve: FourierCorrelation, detail: float) -> float:
    """The mean correlation of all Fourier pixels down to `detail` [Å], the mean itself left out."""
    chosen = (curve.frequency > 0) & (curve.frequency <= 1 / detail) & np.isfinite(curve.correlation)
    return float(np.average(curve.correlation[chosen], weights=curve.samples[chosen])) if chosen.any() else np.nan


def atom_rows(traced: Traced | None) -> dict[str, str]:
    """Precision, recall, F1 and RMSD of all atoms and of every element."""
    if traced is None:
        return {"atoms": "none traced, for nothing agrees with the truth"}
    scores: Mapping[str, Score] = {"atoms": traced.comparison.overall}
    scores |= {f"{name} atoms": score for name, score in traced.classes.items()}
    scores |= {f"atoms of {symbol}": score for symbol, score in traced.comparison.elements.items()}
    return {name: _words(score) for name, score in scores.items()}


def _words(score: Score) -> str:
    parts = f"F1 {score.f1:.3f}, precision {score.precision:.3f}, recall {score.recall:.3f} of {score.true}"
    return f"{parts}, RMSD {_list(score.rmsd, '.2g', 'Å (z, y, x)')}"


def _list(values, form: str, unit: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values) + f" {unit}"


def draw(
    folder: Path, volume, known, atoms: TrueAtoms, voxel, place, tilts, curves: Detail, traced: Traced | None
) -> None:
    """The volume with sections through `place` [Å], its detail and its atoms, as PNG and xyz files in `folder`."""
    half, structure, parts = fixed(0.5), to_ase(atoms.positions, atoms.symbols), curves.directions
    if curves.wedge is not None:
        parts = {"within the tilts": curves.wedge.inside, "in the missing wedge": curves.wedge.outside} | parts
    figures = {
        "sections": draw_sections(volume, voxel, place, structure),
        "sections_truth": draw_sections(known, voxel, place, structure),
        "surfaces": draw_surfaces(volume, voxel),
        "power": draw_power(volume, voxel, tilts),
        "fsc_truth": draw_correlation(curves.whole, {"0.5": half}),
        "fsc_parts": draw_directions(parts, half),
        "fsc_directions": draw_directional(volume, known, voxel, tilts, window=taper(volume.shape)),
    }
    if traced is not None:
        corner: Any = -(np.array(volume.shape) // 2) * voxel
        pairs = traced.found, traced.true, traced.comparison
        write_structure(folder / "atoms.xyz", to_ase(traced.found, traced.species))
        figures |= {"atoms": draw_atoms(volume, voxel, *pairs, corner), "displacements": draw_displacements(*pairs)}
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
