"""`jaxptycho simulate`: a simulation job → a native file with everything true under `/truth`."""

import inspect
from collections.abc import Callable
from math import pi, prod, radians
from pathlib import Path
from typing import Any

import ase
import equinox as eqx
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..analysis.design import design
from ..io.native import writing
from ..io.structures import read_structure
from ..machines.placement import mesh, share
from ..parts.probe import AberratedProbe
from ..physics import waves
from ..physics.grids import Grid
from ..simulate.camera import Camera
from ..simulate.experiment import Experiment, Sampling, ViewErrors, patterns, simulate
from ..simulate.microscope import Microscope
from ..simulate.phantoms import PHANTOMS
from ..simulate.phantoms.amorphous import amorphous_carbon
from ..simulate.phantoms.arrange import on_support
from ..simulate.phantoms.cutting import tile
from ..simulate.scan import ScanErrors, raster
from .build import read_mtf
from .jobs import write_job
from .schema import suggest
from .simulation_schema import Atoms, SimulationJob


def run_simulation(job: SimulationJob, path: Path) -> dict[str, str]:
    """Writes the simulated measurement; what it holds, in words."""
    if path.exists():
        raise ValueError(f"{path} exists and is not overwritten; choose another name with --out")
    experiment = build_experiment(job)
    total = len(experiment.scan) * experiment.n_views * experiment.configurations
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task("patterns", total=total)
        write_experiment(experiment, path, job, lambda patterns: bar.advance(task, patterns))
    return {"file": str(path)} | describe_experiment(experiment)


def check_simulation(job: SimulationJob) -> dict[str, str]:
    """A simulation job with everything built and nothing computed: its size, and what such an experiment resolves."""
    experiment = build_experiment(job)
    lens, scan = experiment.microscope, job.scan
    planned = design(
        experiment.grid,
        lens.semiangle,
        lens.defocus,
        scan.step_angstrom,
        experiment.dose,
        float(experiment.box.faces[-1, 1]),
    )
    warnings = {"warning": "; ".join(planned.warnings)} if planned.warnings else {}
    return describe_experiment(experiment) | dict(planned.rows()) | warnings


def describe_experiment(experiment: Experiment) -> dict[str, str]:
    """What is simulated, on which grid, and what that takes."""
    box, fine = experiment.box, experiment.fine.shape
    exposures = len(experiment.scan) * experiment.n_views * experiment.configurations
    return {
        "patterns": f"{experiment.n_views} × {len(experiment.scan)} of {experiment.grid.shape[0]}² pixels",
        "atoms": f"{len(experiment.atoms)} ({experiment.atoms.get_chemical_formula(empirical=True)})",
        "electrons per pattern": f"{experiment.dose:.5g}",
        "box": f"{box.grid.shape[0]} × {box.grid.shape[1]} pixels of {box.grid.pixel[0]:.4g} Å, "
        f"{len(box.faces)} slices of {box.thickness:.4g} Å",
        "waves": f"{fine[0]}² pixels, {exposures * 2 * len(box.faces)} Fourier transforms",
        "memory": f"{8e-6 * prod(box.grid.shape) * len(box.faces):.4g} MB of slices",
    }


def build_experiment(job: SimulationJob) -> Experiment:
    """The experiment that a job describes."""
    lens, scan, screen, series = job.microscope, job.scan, job.detector, job.tilt_series
    area = scan.step_angstrom**2
    return Experiment(
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
        sampling=Sampling(job.sampling.pixel_angstrom, job.sampling.slice_angstrom, job.sampling.finer),
        scan_errors=ScanErrors(scan.jitter_angstrom, _pair(scan.drift_angstrom), scan.shear, _pair(scan.scale)),
        descan=_pair(np.multiply(scan.descan_mrad, 1e-3)),
        vibration=job.specimen.vibration_angstrom,
        configurations=job.sampling.configurations,
        parametrisation=job.specimen.parametrisation,
        projection=job.specimen.projection,
        tilts=None if series.tilts_deg is None else tuple(map(radians, series.tilts_deg)),
        view_errors=ViewErrors(radians(series.angle_error_deg), series.shift_angstrom, series.defocus_error_angstrom),
        seed=job.output.seed,
    )


def build_atoms(section: Atoms) -> ase.Atoms:
    """The atoms that a job names."""
    if section.phantom is not None:
        atoms = _phantom(section.phantom, section.options)
    else:
        assert section.file is not None
        atoms = _cut(read_structure(section.file), section)
    if section.support_angstrom is None:
        return atoms
    width = float(np.ptp(atoms.positions[:, :2], axis=0).max())
    return on_support(atoms, amorphous_carbon(width=width, thickness=section.support_angstrom))


def write_experiment(experiment: Experiment, path: Path, job: SimulationJob, report: Callable[[int], None]) -> None:
    """The experiment's counts and its truth as a native file, view by view."""
    lens, box = experiment.microscope, experiment.box
    about = {
        "semiangle_mrad": 1e3 * lens.semiangle,
        "defocus_angstrom": lens.defocus + (0.0 if experiment.tilts is None else float(box.origin[0])),  # at the axis
        "thickness_angstrom": float(box.faces[-1, 1]),
        "scan_shape": job.scan.shape,
        "scan_step_angstrom": job.scan.step_angstrom,
        "simulation": write_job(job),
    }
    tilts = None if experiment.tilts is None else np.array(experiment.tilts)
    positions = [experiment.scan] * experiment.n_views
    kind = experiment.camera.dtype
    facts = truth(experiment, job.output.slab_angstrom)
    with writing(path, experiment.grid, positions, kind, tilts=tilts, about=about, truth=facts) as put:
        for view, block, counts in simulate(experiment, report, share(patterns, mesh())):
            put(view, block, counts)


def truth(experiment: Experiment, slab: float) -> dict[str, Any]:
    """Everything true of an experiment, lengths in Å.

    `potential` [z, y, x] is the mean potential of the untilted specimen in V·Å, projected within slabs
    of `slab_angstrom`, and `origin_angstrom` (z, y, x) where its first slab begins and its pixel [0, 0]
    stands; of every view there are its angles (about y, x and z), shift (y, x), positions, defocus and probe (the
    centre at [N//2, N//2]), these two where the first slab begins.
    """
    box, views = experiment.box, experiment.views
    potential = np.asarray(experiment.potential(slab))
    of_views = {
        "positions": np.stack([view.positions for view in views]),
        "angles_deg": np.rad2deg([view.angles for view in views]),
        "shift_angstrom": np.stack([view.shift for view in views]),
        "defocus_angstrom": np.array([view.defocus for view in views]),
        "probe": np.stack([true_probe(experiment, view.defocus) for view in views]),
    }
    if experiment.tilts is None:
        of_views = {name: values[0] for name, values in of_views.items()}
    return of_views | {
        "potential": potential,
        "projected_potential": potential.sum(0),
        "origin_angstrom": box.origin,
        "pixel_angstrom": np.array(box.grid.pixel),
        "slab_angstrom": slab,
        "atomic_numbers": experiment.atoms.numbers,
        "atom_positions_angstrom": experiment.atoms.positions[:, ::-1],
        "vibration_angstrom": np.sqrt(experiment.debye_waller / (8 * pi**2)),
    }


def true_probe(experiment: Experiment, defocus: float) -> np.ndarray:
    """The coherent probe [√electrons] on the grid of the detector, [mode, y, x]."""
    lens, grid = experiment.microscope, experiment.grid
    probe: AberratedProbe = lens.probe(experiment.dose, defocus - lens.defocus)
    return np.fft.fftshift(np.asarray(_wave(probe, grid)), axes=(-2, -1))


@eqx.filter_jit
def _wave(probe: AberratedProbe, grid: Grid):
    return waves.inverse_fourier(probe.spectrum(grid))


def _phantom(name: str, options: dict[str, Any]) -> ase.Atoms:
    build = PHANTOMS[name]
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option}; {suggest(option, known)}")
    return build(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def _cut(cell: ase.Atoms, section: Atoms) -> ase.Atoms:
    """A periodic cell tiled to the wanted size; a finite structure as it is, its middle at the origin."""
    width, thickness = section.width_angstrom, section.thickness_angstrom
    if width is None and thickness is None:
        centred = cell.copy()
        centred.positions -= (cell.positions.min(0) + cell.positions.max(0)) / 2
        return centred
    if width is None or thickness is None or not cell.pbc.all():
        raise ValueError(
            f"specimen.width_angstrom and thickness_angstrom are {width} and {thickness}, and the cell is "
            f"{'' if cell.pbc.all() else 'not '}periodic; give both for a periodic cell, neither for a finite structure"
        )
    a, b, c = section.zone_axis or (0, 0, 1)
    return tile(cell, width, thickness, (a, b, c))


def _pair(values) -> tuple[float, float]:
    return float(values[0]), float(values[1])
