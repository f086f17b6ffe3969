"""Evaluation of a result against the ground truth: `jaxptycho compare A --truth FILE`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.errors import PositionError, position_error, probe_fidelity
from ..analysis.images import nrmse, psnr, ssim
from ..analysis.pictures import probe_modes
from ..analysis.resolution import FourierCorrelation, fixed, fourier_correlation
from ..analysis.shells import soft_inside
from ..analysis.truth import Agreement, compare_phase, compare_slices, phases
from ..figures.depth import draw_slice_correlation
from ..figures.errors import draw_positions_error, draw_probes
from ..figures.plots import draw_pair, save
from ..figures.resolution import draw_correlation
from ..io.native import read_native, read_truth
from ..model import Model, probe_positions
from ..runs.folder import load_result
from .evaluate_spectrum import draw_spectra, spectrum_rows
from .evaluate_volume import evaluate_volume


def evaluate_results(
    results: list[Path], file: Path, out: Path | None = None
) -> dict[str, tuple[str, ...]]:
    """Agreement of each result with the ground truth in `file`, a row for each measure.

    Figures are written to `out`.
    """
    columns = []
    for number, path in enumerate(results):
        separate = out is not None and len(results) > 1
        folder = out / f"{number + 1}-{path.stem}" if out is not None and separate else out
        columns.append(evaluate_model(load_result(path), file, folder))
    names = list(dict.fromkeys(name for column in columns for name in column))
    return {name: tuple(column.get(name, "–") for column in columns) for name in names}


def evaluate_model(model: Model, file: Path, folder: Path | None = None) -> dict[str, str]:
    """Agreement of a model with the ground truth in `file` as rows; figures in `folder`."""
    truth = read_truth(file)
    if np.ndim(truth.get("angles_deg", 0.0)) == 2:
        return evaluate_volume(model, truth, read_native(file).tilts, folder)
    return evaluate_scan(model, truth, folder)


def evaluate_scan(
    model: Model, truth: dict[str, Any], folder: Path | None = None
) -> dict[str, str]:
    """Phase, depth, positions and probe of a model of one view against the truth, as rows."""
    model = replace(model, specimen=model.specimen.in_slices(model.grid))
    agreement = phase_agreement(model, truth)
    curve = truth_correlation(model, agreement)
    rows = {
        "correlation of the phase": f"{agreement.correlation:.4f}",
        "slope of the phase": f"{agreement.slope:.4f}",
        "shift removed": ", ".join(f"{s:+.3g}" for s in agreement.shift) + " Å (y, x)",
        "resolution against the truth": f"{curve.resolution(fixed(0.5)):.4g} Å (0.5)",
    } | image_rows(agreement)
    window = soft_inside(agreement.inside)
    rows |= spectrum_rows(agreement.phase, model.grid.pixel, window)
    matrix = depth_matrix(model, truth, agreement)
    if matrix is not None:
        rows |= depth_rows(
            matrix,
            np.asarray(model.specimen.thicknesses(model.grid)),
            float(truth["slab_angstrom"]),
        )
    error = positions_against(model, truth)
    if error is not None:
        rows |= error.summary()
    modes = true_modes(model, truth)
    if modes is not None:
        found = probe_modes(model).waves
        rows["fidelity of the probe"] = (
            f"{probe_fidelity(found, modes, np.array(model.grid.pixel)).fidelity:.4f}"
        )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        save(draw_pair(agreement.truth, agreement.phase, model.grid.pixel), folder / "phase.png")
        save(draw_correlation(curve), folder / "frc_truth.png")
        draw_spectra(
            {"result": agreement.phase, "truth": agreement.truth}, model.grid.pixel, window, folder
        )
        if matrix is not None:
            save(
                draw_slice_correlation(matrix, _spacing(model), float(truth["slab_angstrom"])),
                folder / "depth.png",
            )
        if error is not None:
            save(
                draw_positions_error(error, np.asarray(truth["positions"])),
                folder / "positions_error.png",
            )
        if modes is not None:
            save(
                draw_probes(probe_modes(model).waves, modes, model.grid.pixel),
                folder / "probes.png",
            )
    return rows


def phase_agreement(model: Model, truth: dict[str, Any]) -> Agreement:
    """Summed phase against σ times the true projected potential."""
    projected = model.grid.sigma * np.asarray(truth["projected_potential"])
    pixel, corner = _place(truth)
    return compare_phase(phases(model).sum(0), model, projected, pixel, truth_origin=corner)


def truth_correlation(model: Model, agreement: Agreement) -> FourierCorrelation:
    """Ring correlation of a phase with the true one, under a soft window that hides both edges."""
    window = soft_inside(agreement.inside)
    return fourier_correlation(agreement.truth, agreement.phase, model.grid.pixel, window)


def image_rows(agreement: Agreement) -> dict[str, str]:
    """PSNR, SSIM and NRMSE of the phase at its scale: inverted or weak phases are not corrected."""
    pair = (agreement.phase, agreement.truth)
    where = agreement.inside
    return {
        "PSNR": f"{psnr(*pair, where=where):.3g} dB",
        "SSIM": f"{ssim(*pair, where=where):.3f}",
        "NRMSE": f"{nrmse(*pair, where=where):.3f}",
    }


def depth_matrix(model: Model, truth: dict[str, Any], agreement: Agreement) -> np.ndarray | None:
    """Correlation of every slice with every slab of the truth; None for a thin result or truth."""
    found = phases(model)
    if len(found) < 2 or len(truth.get("potential", ())) < 2:
        return None
    pixel, corner = _place(truth)
    return compare_slices(
        found, model, np.asarray(truth["potential"]), pixel, agreement, truth_origin=corner
    )


def depth_rows(matrix: np.ndarray, thickness: np.ndarray, slab: float) -> dict[str, str]:
    """Correlation of every slice with the most similar slab of the truth, and both depths."""
    own = np.cumsum(thickness) - thickness / 2
    like = (matrix.argmax(1) + 0.5) * slab
    return {
        "correlation of the slices": ", ".join(f"{c:.3f}" for c in matrix.max(1)),
        "depth of the slabs most like them": ", ".join(f"{d:.4g}" for d in like)
        + " Å, of the slices "
        + ", ".join(f"{d:.4g}" for d in own)
        + " Å",
    }


def positions_against(model: Model, truth: dict[str, Any]) -> PositionError | None:
    """Errors of the positions less a linear map; None for other shots than the truth."""
    found = probe_positions(model)
    if "positions" not in truth or np.shape(truth["positions"]) != found.shape:
        return None
    return position_error(found, np.asarray(truth["positions"]) - model.frame)


def true_modes(model: Model, truth: dict[str, Any]) -> np.ndarray | None:
    """Modes of the true probe; None if it is not known on the model's grid."""
    probe = truth.get("probe")
    return None if probe is None or probe.shape[-2:] != model.grid.shape else probe


def _place(truth: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixel (y, x) of the truth [Å], and the position of its pixel [0, 0]; None if periodic."""
    corner = truth.get("origin_angstrom")
    return np.asarray(truth["pixel_angstrom"]), None if corner is None else np.asarray(corner)[1:]


def _spacing(model: Model) -> float:
    return float(np.mean(model.specimen.thicknesses(model.grid)))
