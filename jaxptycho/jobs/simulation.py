"""From the sections of a simulation to an experiment, and to a native file with `/truth`."""

from collections.abc import Callable
from math import pi, prod, radians
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.coverage import TiltSeries, coverage
from ..analysis.design import design
from ..distributed.sharding import mesh, share
from ..io.native import native_writer
from ..physics.grids import Grid
from ..simulate.camera import Camera
from ..simulate.experiment import (
    ENOUGH,
    Experiment,
    Sampling,
    ViewErrors,
    expected_patterns,
    simulate,
)
from ..simulate.microscope import Microscope
from ..simulate.scan import ScanErrors, raster
from .build import read_mtf
from .simulation_atoms import build_atoms
from .simulation_sections import Simulation


def run_simulation(
    job: Simulation, path: Path, report: Callable[[int], None] = lambda patterns: None
) -> dict[str, str]:
    """Write the simulated measurement and return its summary.

    `report(patterns)` is called for finished patterns. Raises ValueError where `path` exists.
    """
    require_new(path)
    experiment = build_experiment(job)
    write_experiment(experiment, path, job, report)
    found = simulation_cautions(experiment)
    warning = {"warning": "; ".join(found)} if found else {}
    return {"file": str(path)} | describe_experiment(experiment) | warning


def exposures(experiment: Experiment) -> int:
    """Number of patterns that are computed, every configuration of vibrations for itself."""
    return len(experiment.scan) * experiment.n_views * experiment.configurations


def require_new(path: Path) -> None:
    """Raise ValueError where a file exists."""
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten; give another name (step.N.file)")


def check_simulation(job: Simulation) -> dict[str, str]:
    """Rows of a simulation job, built without computation: its size and expected resolution."""
    experiment = build_experiment(job)
    lens = experiment.microscope
    scan = job.scan
    planned = design(
        experiment.grid,
        lens.semiangle,
        lens.defocus,
        scan.step_angstrom,
        experiment.dose,
        float(experiment.box.faces[-1, 1]),
    )
    found = [*simulation_cautions(experiment), *planned.warnings]
    warnings = {"warning": "; ".join(found)} if found else {}
    return describe_experiment(experiment) | planned.summary() | covered(experiment) | warnings


def covered(experiment: Experiment) -> dict[str, str]:
    """Fraction of Fourier space, to the detail of the pixels, that a tilt series measures.

    Empty for a single view.
    """
    if experiment.tilts is None or np.ptp(experiment.tilts) > pi:
        return {}
    lens = experiment.microscope
    grid = experiment.grid
    thickness = float(experiment.box.faces[-1, 1])
    detail = 2 * max(grid.pixel)
    parts = coverage(
        TiltSeries(np.array(experiment.tilts), lens.semiangle, grid.wavelength, thickness), detail
    )
    ball = parts.of_ball
    filled = parts.filled_wedge
    words = (
        f"{100 * ball['slabs']:.3g} % by single slices, {100 * ball['cones']:.3g} % by "
        f"multislice, to {detail:.3g} Å"
    )
    wedge = (
        {}
        if np.isnan(filled)
        else {"missing wedge": f"{100 * ball['wedge']:.3g} %, {100 * filled:.3g} % of it filled"}
    )
    return {"coverage": words} | wedge


def simulation_cautions(experiment: Experiment) -> list[str]:
    """Cautions about properties of a simulation that its numbers do not show."""
    own = experiment.configurations
    few = experiment.configurations < ENOUGH
    if not (experiment.varies and few):
        return []
    what = " and ".join(experiment.varies)
    so = "one snapshot" if own == 1 else f"the mean of only {own} configurations"
    return [f"{what}: {so}, not an average (sampling.configurations, at least {ENOUGH})"]


def describe_experiment(experiment: Experiment) -> dict[str, str]:
    """Rows of the simulated specimen, its grid, and the cost of the simulation."""
    box = experiment.box
    fine = experiment.fine.shape
    return {
        "patterns": f"{experiment.n_views} × {len(experiment.scan)} of "
        f"{experiment.grid.shape[0]}² pixels",
        "atoms": f"{len(experiment.atoms)} "
        f"({experiment.atoms.get_chemical_formula(empirical=True)})",
        "electrons per pattern": f"{experiment.dose:.5g}",
        "field": f"the scan with its probe reaches {illuminated_width(experiment):.4g} Å, "
        f"the atoms {extent(experiment):.4g} Å",
        "box": f"{box.grid.shape[0]} × {box.grid.shape[1]} pixels of {box.grid.pixel[0]:.4g} Å, "
        f"{len(box.faces)} slices of {box.thickness:.4g} Å",
        "waves": f"{fine[0]}² pixels, "
        f"{exposures(experiment) * 2 * len(box.faces)} Fourier transforms",
        "memory": f"{8e-6 * prod(box.grid.shape) * len(box.faces):.4g} MB of slices",
    }


def illuminated_width(experiment: Experiment) -> float:
    """The longer side [Å] of the field that the scan illuminates, with the probe at its widest."""
    lens = experiment.microscope
    depth = float(experiment.box.faces[-1, 1])
    width = max(
        lens.width(experiment.grid, defocus) for defocus in (lens.defocus, lens.defocus - depth)
    )
    return float(np.ptp(experiment.scan, axis=0).max()) + width


def extent(experiment: Experiment) -> float:
    """The shorter side [Å] of the atoms across the beam."""
    return float(np.ptp(experiment.atoms.positions[:, :2], axis=0).min())


def build_experiment(job: Simulation) -> Experiment:
    """The experiment that a job describes."""
    lens = job.microscope
    scan = job.scan
    screen = job.detector
    series = job.tilt_series
    area = scan.step_angstrom**2
    experiment = Experiment(
        atoms=build_atoms(job.specimen),
        grid=Grid((screen.pixels, screen.pixels), screen.pixel_angstrom, lens.voltage_kv),
        microscope=Microscope(
            1e-3 * lens.semiangle_mrad,
            lens.defocus_angstrom,
            lens.aberrations_angstrom,
            lens.source_fwhm_angstrom,
            1e7 * lens.chromatic_mm,
            lens.energy_fwhm_ev,
        ),
        scan=raster((scan.shape[0], scan.shape[1]), scan.step_angstrom, radians(scan.rotation_deg)),
        dose=scan.dose_per_square_angstrom * area,
        camera=Camera(
            None if screen.mtf_file is None else read_mtf(screen.mtf_file),
            screen.gain,
            screen.spread_pixels,
            screen.flatfield,
            screen.readout,
            screen.noise,
        ),
        sampling=Sampling(
            job.sampling.pixel_angstrom, job.sampling.slice_angstrom, job.sampling.finer
        ),
        scan_errors=ScanErrors(
            scan.jitter_angstrom, _pair(scan.drift_angstrom), scan.shear, _pair(scan.scale)
        ),
        descan=_pair(np.multiply(scan.descan_mrad, 1e-3)),
        vibration=job.specimen.vibration_angstrom,
        configurations=job.sampling.configurations,
        parametrisation=job.specimen.parametrisation,
        projection=job.specimen.projection,
        tilts=None if series.tilts_deg is None else tuple(map(radians, series.tilts_deg)),
        view_errors=ViewErrors(
            radians(series.angle_error_deg), series.shift_angstrom, series.defocus_error_angstrom
        ),
        seed=job.seed,
    )
    width = job.specimen.width_angstrom
    if width is not None and series.tilts_deg is None and illuminated_width(experiment) > width:
        raise ValueError(
            f"specimen.width_angstrom is {width:g} Å, the scan with its probe reaches "
            f"{illuminated_width(experiment):.4g} Å, where vacuum would be seen beside the film; "
            "cut a wider one, or scan less of it"
        )
    return experiment


def write_experiment(
    experiment: Experiment, path: Path, job: Simulation, report: Callable[[int], None]
) -> None:
    """The experiment's counts and its truth as a native file, view by view."""
    lens = experiment.microscope
    box = experiment.box
    about = {
        "semiangle_mrad": 1e3 * lens.semiangle,
        "defocus_angstrom": lens.defocus
        + (0.0 if experiment.tilts is None else float(box.origin[0])),  # at the axis
        "thickness_angstrom": float(box.faces[-1, 1]),
        "scan_shape": job.scan.shape,
        "scan_step_angstrom": job.scan.step_angstrom,
        "simulation": job.model_dump_json(exclude_defaults=True),
    }
    tilts = None if experiment.tilts is None else np.array(experiment.tilts)
    positions = [experiment.scan] * experiment.n_views
    kind = experiment.camera.dtype
    facts = truth(experiment, job.slab_angstrom)
    with native_writer(
        path, experiment.grid, positions, kind, tilts=tilts, about=about, truth=facts
    ) as put:
        for view, block, counts in simulate(experiment, report, share(expected_patterns, mesh())):
            put(view, block, counts)


def truth(experiment: Experiment, slab: float) -> dict[str, Any]:
    """Ground truth of an experiment, lengths in Å.

    `potential` [z, y, x] is the mean potential of the untilted specimen in V·Å, projected within
    slabs of `slab_angstrom`, and `origin_angstrom` (z, y, x) the position of its first face and of
    its pixel [0, 0]; for every view angles (about y, x and z), shift (y, x), positions, and, at the
    first face, its defocus and the modes of its probe [√electrons] (the centre at [N//2, N//2]).
    `descan_mrad` [shot, 2] is the displacement of every pattern, `gain_map` the relative gain of
    the camera's pixels.
    """
    box = experiment.box
    views = experiment.views
    potential = np.asarray(experiment.potential(slab))
    of_views = {
        "positions": np.stack([view.positions for view in views]),
        "angles_deg": np.rad2deg([view.angles for view in views]),
        "shift_angstrom": np.stack([view.shift for view in views]),
        "defocus_angstrom": np.array([view.defocus for view in views]),
        "probe": probes(experiment),
    }
    if experiment.tilts is None:
        of_views = {name: values[0] for name, values in of_views.items()}
    gain = {"gain_map": experiment.gain_map} if experiment.camera.flatfield else {}
    return (
        of_views
        | gain
        | {
            "descan_mrad": 1e3 * experiment.descanned(experiment.scan),
            "potential": potential,
            "projected_potential": potential.sum(0),
            "origin_angstrom": box.origin,
            "pixel_angstrom": np.array(box.grid.pixel),
            "slab_angstrom": slab,
            "parametrisation": np.bytes_(experiment.parametrisation),
            "atomic_numbers": experiment.atoms.numbers,
            "atom_positions_angstrom": experiment.atoms.positions[:, ::-1],
            "vibration_angstrom": np.sqrt(experiment.debye_waller / (8 * pi**2)),
        }
    )


def probes(experiment: Experiment) -> np.ndarray:
    """Modes of every view's probe [√electrons] on the grid of the detector, [view, mode, y, x]."""
    lens = experiment.microscope
    grid = experiment.grid
    spectra = [
        lens.modes(grid, experiment.dose, view.defocus - lens.defocus) for view in experiment.views
    ]
    most = max(map(len, spectra))
    padded = np.stack([np.pad(own, [(0, most - len(own)), (0, 0), (0, 0)]) for own in spectra])
    return np.fft.fftshift(np.fft.ifft2(padded, norm="ortho"), axes=(-2, -1)).astype(np.complex64)


def _pair(values) -> tuple[float, float]:
    return float(values[0]), float(values[1])
