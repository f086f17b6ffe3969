"""Evaluation of a volume against the ground truth of a simulated tilt series.

Its gauge, its resolution and its atoms.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..analysis.errors import Alignment, alignment_error, probe_fidelity
from ..analysis.images import nrmse
from ..analysis.pictures import probe_modes
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
from ..figures.atoms import draw_atoms, draw_displacements
from ..figures.errors import draw_alignment
from ..figures.plots import save
from ..figures.resolution import draw_correlation, draw_directions
from ..figures.volumes import draw_directional, draw_power, draw_sections, draw_surfaces
from ..io.structures import to_ase, write_structure
from ..model import Model, probe_positions
from ..parts.indexed import PerView, axis_size, select
from ..parts.probe import PixelProbe
from ..physics.types import Numbers
from .evaluate_atoms import (
    Traced,
    TrueAtoms,
    atom_rows,
    format_numbers,
    match_atoms,
    trace,
    trace_blind,
    true_atoms,
)

CONE = np.deg2rad(20.0)  # half angle of the directions in the table
WEDGE_DETAIL = 2.0  # Å, smallest period in the mean correlation of the missing wedge


class Detail(NamedTuple):
    """Correlation of a volume with the true one, shell by shell."""

    whole: FourierCorrelation
    directions: dict[str, FourierCorrelation]
    wedge: WedgeCorrelations | None  # None without a missing wedge


def evaluate_volume(
    model: Model, truth: dict[str, Any], nominal: Numbers | None, folder: Path | None = None
) -> dict[str, str]:
    """Gauge, detail, atoms and alignment of a model whose specimen rotates, as rows.

    `nominal` are the tilts [rad] of the file, from which the alignment began.
    """
    if lacking := {"atomic_numbers", "atom_positions_angstrom", "vibration_angstrom"} - set(truth):
        raise ValueError(
            f"the truth has no {', '.join(sorted(lacking))}; give a file that a step `simulate` "
            "wrote"
        )
    own: Any = model.specimen
    views = axis_size(own, PerView)
    angles = np.deg2rad(truth["angles_deg"])
    if not own.rotates or views != len(angles):
        raise ValueError(
            f"the truth is a tilt series of {len(angles)} views, the result a "
            f"{type(own).__name__} of {views}; give a result with a Volume of the same views"
        )
    specimen = own.in_voxels(model.grid)
    model = replace(model, specimen=specimen)
    atoms = true_atoms(truth)
    voxel: Any = np.array(specimen.voxel)
    volume = np.asarray(specimen.seen, float)
    require_overlap(atoms, volume.shape, voxel)
    gauge: AlignedVolume = align_volume(volume, atoms.potential(volume.shape, voxel), voxel)
    hand = HANDS[gauge.mirrored]
    moved = atoms._replace(positions=atoms.positions @ (gauge.rotation @ hand).T + gauge.shift)
    known = moved.potential(volume.shape, voxel)  # the result is not resampled
    found = alignment(model, truth)
    true = Alignment(rotation_matrices(angles), np.asarray(truth["shift_angstrom"]))
    tilts = euler_angles(found.rotations)[:, 0]
    curves = detail(volume, known, voxel, (tilts.min(), tilts.max()))
    traced = trace(volume, moved, voxel, curves.whole.resolution(fixed(0.5)))
    blind = trace_blind(volume, moved, voxel)
    error = alignment_error(
        found._replace(rotations=hand @ found.rotations @ hand), true, voxel.min()
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_volume_figures(
            folder, volume, known, moved, voxel, gauge.shift, tilts, curves, traced, blind
        )
        series = {
            "nominal": alignment_error(_untouched(nominal), true, voxel.min()),
            "result": error,
        }
        save(draw_alignment(series, np.asarray(nominal)), folder / "alignment.png")
    scaled = (volume - gauge.offset) / max(gauge.scale, 1e-9)  # an inverted volume is not corrected
    rows = {
        "correlation of the potential": f"{np.corrcoef(volume.ravel(), known.ravel())[0, 1]:.4f}",
        "NRMSE": f"{nrmse(volume, known):.3f}, less scale and offset {nrmse(scaled, known):.3f}",
    }
    refined = None
    above = specimen.above
    if (listed := own.listed_atoms()) is not None:
        middle = float(np.sum(own.thicknesses(model.grid))) / 2
        height = middle if listed.axis is None else listed.axis
        places = listed.positions - np.array([height, 0.0, 0.0])
        refined = match_atoms(places, listed.numbers, moved)
        above = float(own.above)
    # distance of the true specimen behind the model's, in each view
    behind = (true.rotations @ error.translation)[:, 0]
    rows |= _fidelities(model, truth, behind - above - float(truth["origin_angstrom"][0]))
    return (
        rows
        | gauge_rows(gauge)
        | detail_rows(curves)
        | atom_rows(traced, blind, refined)
        | error.summary()
    )


def alignment(model: Model, truth: dict[str, Any]) -> Alignment:
    """Pose of the specimen in a result, relative to the true illumination.

    Patterns determine the position of the specimen relative to the illumination: a shift of a
    view's positions, or of the probe in its window, is a shift of the specimen in the opposite
    direction.
    """
    views = range(len(truth["angles_deg"]))
    seen = [select(model.specimen, PerView, view) for view in views]
    angles = [[view.tilt, *(np.zeros(2) if view.angles is None else view.angles)] for view in seen]
    shifts = [
        np.asarray(own.shift, float) - _illuminated(model, truth, view)
        for view, own in zip(views, seen, strict=True)
    ]
    return Alignment(rotation_matrices(np.array(angles, float)), np.array(shifts))


def _illuminated(model: Model, truth: dict[str, Any], view: int) -> np.ndarray:
    """Mean displacement of the illumination of a view from the true one (y, x) [Å]."""
    moved = np.zeros(2)
    found = probe_positions(model, view)
    true = truth["positions"][view]
    if found.shape == true.shape:
        moved = np.mean(found - true, axis=0)
    modes = truth["probe"][view]
    if modes.shape[-2:] == model.grid.shape:
        own = probe_modes(select(model, PerView, view)).waves
        moved = moved + probe_fidelity(own, modes, np.array(model.grid.pixel)).shift
    return moved


def _fidelities(model: Model, truth: dict[str, Any], further: np.ndarray) -> dict[str, str]:
    """Fidelity of the probe of every view with the true one, in the plane of the model's.

    The true probe is propagated by `further` [Å] along the beam.
    """
    if truth["probe"].shape[-2:] != model.grid.shape:
        return {}
    found = []
    for view, (modes, distance) in enumerate(zip(truth["probe"], further, strict=True)):
        true: Any = PixelProbe(jnp.asarray(modes)).propagate(model.grid, distance)
        own = probe_modes(select(model, PerView, view)).waves
        found.append(
            probe_fidelity(own, np.asarray(true.waves), np.array(model.grid.pixel)).fidelity
        )
    return {"fidelity of the probes": f"mean {np.mean(found):.4f}, least {np.min(found):.4f}"}


def _untouched(nominal) -> Alignment:
    tilts = np.asarray(nominal, float)
    angles = np.stack([tilts, 0 * tilts, 0 * tilts], 1)
    return Alignment(rotation_matrices(angles), angles[:, 1:])


def detail(
    volume: Float[np.ndarray, "z y x"],
    known: Float[np.ndarray, "z y x"],
    voxel: np.ndarray,
    tilts: tuple[float, float],
) -> Detail:
    """Shell correlation of two volumes: full, along the axes, inside and outside the tilts."""
    window = taper(volume.shape)
    along = directional_correlations(volume, known, voxel, np.eye(3), CONE, window=window)
    wedge = wedge_correlations(volume, known, voxel, tilts, window)
    missing = np.isfinite(wedge.outside.correlation).sum() > 2
    return Detail(
        fourier_correlation(volume, known, voxel, window),
        {f"along {axis}": curve for axis, curve in zip("zyx", along, strict=True)},
        wedge if missing else None,
    )


def require_overlap(atoms: TrueAtoms, shape: tuple[int, ...], voxel: np.ndarray) -> None:
    """Raise ValueError unless a true atom is inside a volume."""
    if atoms.inside(shape, voxel).any():
        return
    sides = np.array(shape) * voxel / 2
    low, high = atoms.positions.min(0), atoms.positions.max(0)
    ends = ", ".join(
        f"{axis} = {a:.5g} to {b:.5g}" for axis, a, b in zip("zyx", low, high, strict=True)
    )
    raise ValueError(
        f"the true atoms, at {ends} Å from the tilt axis, do not overlap the result, a volume of "
        f"± {format_numbers(sides, '.5g', 'Å')} about it; give the file that the result was made "
        "from"
    )


def gauge_rows(gauge: AlignedVolume) -> dict[str, str]:
    """Removed gauge; scale and offset describe the volume in units of the reference."""
    hand = (
        {"hand": "the other one, z runs backwards (a wrong sign of the tilts?)"}
        if gauge.mirrored
        else {}
    )
    return {
        "shift removed": format_numbers(gauge.shift, "+.3g", "Å (z, y, x)"),
        "rotation removed": format_numbers(gauge.angles, "+.3g", "° (about y, x, z)"),
        "scale and offset removed": f"× {gauge.scale:.4g}, {gauge.offset:+.3g} V",
    } | hand


def detail_rows(curves: Detail) -> dict[str, str]:
    """Resolutions at which the correlation with the truth falls below 0.5."""
    rows = {"resolution against the truth": f"{_resolution(curves.whole)} (0.5)"}
    rows |= {f"resolution {name}": _resolution(curve) for name, curve in curves.directions.items()}
    if curves.wedge is None:
        return rows
    inside, outside = curves.wedge
    mean = mean_correlation(outside, WEDGE_DETAIL)
    missing = f"{_resolution(outside)}, mean correlation {mean:.3f} to {WEDGE_DETAIL:g} Å"
    return rows | {
        "resolution within the tilts": _resolution(inside),
        "in the missing wedge": missing,
    }


def _resolution(curve: FourierCorrelation) -> str:
    reached = curve.resolution(fixed(0.5))
    return f"{reached:.4g} Å" if np.isfinite(reached) else "none"


def mean_correlation(curve: FourierCorrelation, detail: float) -> float:
    """Mean correlation of all Fourier pixels down to `detail` [Å], without that of frequency 0."""
    chosen = (
        (curve.frequency > 0) & (curve.frequency <= 1 / detail) & np.isfinite(curve.correlation)
    )
    return (
        float(np.average(curve.correlation[chosen], weights=curve.samples[chosen]))
        if chosen.any()
        else np.nan
    )


def write_volume_figures(
    folder: Path,
    volume: Float[np.ndarray, "z y x"],
    known: Float[np.ndarray, "z y x"],
    atoms: TrueAtoms,
    voxel: np.ndarray,
    place: np.ndarray,
    tilts: np.ndarray,
    curves: Detail,
    traced: Traced | None,
    blind: Traced | None,
) -> None:
    """Write figures and structures of a volume to `folder`, as PNG, xyz and cif files.

    Sections through `place` [Å], its detail and its atoms.
    """
    half = fixed(0.5)
    structure = to_ase(atoms.positions, atoms.symbols)
    parts = curves.directions
    if curves.wedge is not None:
        parts = {
            "within the tilts": curves.wedge.inside,
            "in the missing wedge": curves.wedge.outside,
        } | parts
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
        figures |= {
            "atoms": draw_atoms(volume, voxel, *pairs, corner),
            "displacements": draw_displacements(*pairs),
        }
    for name, own in (("atoms", traced), ("atoms_blind", blind)):
        if own is not None:
            write_structure(folder / f"{name}.xyz", to_ase(own.found, own.species))
            box: Any = np.array(volume.shape) * voxel
            write_structure(folder / f"{name}.cif", to_ase(own.found + box / 2, own.species, box))
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
