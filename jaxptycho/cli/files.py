"""What the commands `new`, `inspect` and `validate` say about files."""

import math
import os
import warnings
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import h5py
import jax
import numpy as np
import tomlkit

from ..analysis.design import area_per_shot, design
from ..data import Batch, Dataset
from ..distributed.memory_plan import plan, size_of
from ..distributed.sharding import even
from ..io.datasets import read
from ..jobs.build import build_loss, descan_statement
from ..jobs.loading import load_result
from ..jobs.reading import kind_of, make_job, read_job, write_job
from ..jobs.runner import loop_of, result_of
from ..jobs.schema import Job, suggest
from ..jobs.simulation_schema import SimulationJob
from ..jobs.tomogram_schema import TomogramJob
from ..model import Model
from ..runs.loop import Loop
from ..simulate.phantoms import PHANTOMS
from ..start.calibration import bright_field_centre, bright_field_semiangle
from ..start.cautions import Caution, cautions
from ..start.descan import descan_rows

# what a file may know, and where a job says it
PLACES = {"semiangle_mrad": "probe", "defocus_angstrom": "probe", "thickness_angstrom": "specimen"}
OF_MODEL = ("job", "frame_angstrom")  # attributes of a result that are too long, or shown with its model


def new_job(file: Path, target: Path, template: str | None = None) -> str:
    """TOML text of a commented job for `file`, to be written to `target`."""
    _refuse_existing(target)
    relative = os.path.relpath(file.resolve(), target.resolve().parent)
    if template is not None:
        return _from_template(template, file, relative)
    data = read(file)
    for caution in cautions(data):
        warnings.warn(str(caution), stacklevel=2)
    values: dict[str, Any] = {"data": {"file": relative}}
    for name, section in PLACES.items():
        if name in data.about:
            values.setdefault(section, {})[name] = float(data.about[name])
    if "effective_distance_angstrom" in data.about:
        values["data"]["near_field"] = True
    if data.n_views > 1:
        values.pop("specimen", None)
        return write_job(make_job(values, kind=TomogramJob), blanks=True)
    return write_job(make_job(values), blanks=True)


def _from_template(template: str, file: Path, relative: str) -> str:
    """The job of a template for a measurement, or for a phantom if it is a simulation."""
    job: Any = tomlkit.parse(template_text(template))
    if "data" in job:
        job["data"]["file"] = relative
    elif str(file) not in PHANTOMS:
        raise ValueError(f"the template {template} simulates, and {file} is no phantom; {suggest(str(file), PHANTOMS)}")
    elif str(file) != job["specimen"]["phantom"]:
        job["specimen"]["phantom"] = str(file)
        job["specimen"].pop("options", None)
    return tomlkit.dumps(job)


def new_simulation(phantom: str, target: Path) -> str:
    """TOML text of a commented job that simulates a phantom, to be written to `target`."""
    _refuse_existing(target)
    values = {
        "specimen": {"phantom": phantom},
        "microscope": {"voltage_kv": 300.0, "semiangle_mrad": 21.4, "defocus_angstrom": 100.0},
        "scan": {"step_angstrom": 0.5, "dose_per_square_angstrom": 1e6},
        "detector": {"pixel_angstrom": 0.25},
    }
    return write_job(make_job(values, kind=SimulationJob), blanks=True)


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise ValueError(f"{target} exists and is not overwritten; choose another name with --out")


def templates() -> list[str]:
    """Names of the jobs that come with the package."""
    folder = resources.files("jaxptycho.jobs") / "templates"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def template_text(name: str) -> str:
    """The job file of a template."""
    if name not in templates():
        raise ValueError(f"no template is called {name}; {suggest(name, templates())}")
    return (resources.files("jaxptycho.jobs") / "templates" / f"{name}.toml").read_text(encoding="utf-8")


def describe(path: Path) -> dict[str, str]:
    """What a dataset, a result, a run or a job holds."""
    path = result_of(path)
    if path.suffix == ".toml":
        return describe_job(read_job(path, kind=kind_of(path)))
    if path.suffix != ".cxi" and path.exists() and h5py.is_hdf5(path):
        with h5py.File(path) as file:
            if "model" in file:
                attributes = {name: value for name, value in file.attrs.items() if name not in OF_MODEL}
                return describe_model(load_result(path)) | {name: _short(value) for name, value in attributes.items()}
    return describe_data(read(path))


def describe_data(data: Dataset) -> dict[str, str]:
    """Shapes, doses and the instrument; `caution` lines name what looks wrong."""
    grid = data.grid
    doses = np.concatenate([data.dose(view) for view in range(data.n_views)])
    places = np.concatenate(data.positions)
    rows = {
        "patterns": f"{' + '.join(map(str, data.n_shots))} of {grid.shape[0]} × {grid.shape[1]} pixels",
        "beam": f"{grid.voltage_kv:g} kV, {grid.wavelength:.5g} Å" if grid.voltage_kv else f"{grid.wavelength:.5g} Å",
        "object pixel": f"{grid.pixel[0]:.5g} × {grid.pixel[1]:.5g} Å",
        "detector step": " × ".join(f"{1e3 * grid.wavelength * dk:.4g}" for dk in grid.dk) + " mrad",
        "scanned": " × ".join(f"{extent:.5g}" for extent in np.ptp(places, axis=0)) + " Å",
        **frame_row(data.frame),
        "dose per pattern": f"{doses.mean():.5g} quanta ({doses.min():.4g} to {doses.max():.4g})",
        "masked pixels": "none" if data.mask is None else str(int((~data.mask).sum())),
        **({} if data.tilts is None else {"tilts": ", ".join(f"{t:+.4g}" for t in np.rad2deg(data.tilts)) + " °"}),
        "probe guess": "none" if data.probe_guess is None else " × ".join(map(str, data.probe_guess.shape)),
    }
    rows |= {name: _short(value) for name, value in data.about.items()}
    if grid.voltage_kv:
        middle = ", ".join(f"{c:+.2f}" for c in bright_field_centre(data))
        disc = 1e3 * bright_field_semiangle(data)
        rows["bright field"] = f"semiangle {disc:.4g} mrad, centre ({middle}) pixels from the middle"
        rows |= descan_rows(data)
        said = data.about.get("semiangle_mrad")
        if said is not None and "defocus_angstrom" in data.about:
            defocus, step = data.about["defocus_angstrom"], math.sqrt(area_per_shot(data.positions[0]))
            rows |= dict(design(grid, 1e-3 * said, defocus, step, doses.mean()).rows())
    rows |= caution_rows(cautions(data))
    return rows


def caution_rows(found: list[Caution]) -> dict[str, str]:
    """Cautions as rows of a table."""
    return {f"caution {number}": str(caution) for number, caution in enumerate(found, 1)}


def frame_row(frame: tuple[float, float]) -> dict[str, str]:
    """The origin of the positions, where it is not that of the file."""
    return {"positions counted from": "({:.12g}, {:.12g}) Å (y, x)".format(*frame)} if any(frame) else {}


def describe_model(model: Model) -> dict[str, str]:
    """Parts and shapes of a model."""
    rows = {
        name: type(getattr(model, name)).__name__ for name in ("probe", "specimen", "scan", "propagator", "detector")
    }
    rows |= frame_row(model.frame)
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_array)):
        rows[jax.tree_util.keystr(path, simple=True, separator=".")] = f"{leaf.dtype} {leaf.shape}"
    return rows


def describe_job(job: Any) -> dict[str, str]:
    """The stages of a job in short, or what it simulates."""
    if isinstance(job, SimulationJob):
        lens = job.microscope
        return {
            "simulates": f"{job.specimen.phantom or job.specimen.file}",
            "microscope": f"{lens.voltage_kv:g} kV, {lens.semiangle_mrad:g} mrad, defocus {lens.defocus_angstrom:g} Å",
            "scan": f"{' × '.join(map(str, job.scan.shape))} points, {job.scan.step_angstrom:g} Å apart",
        }
    return {"data": job.data.file} | {
        f"stage {stage.name}": f"{stage.epochs} epochs of {stage.optimiser}, {stage.loss} loss, batches of {stage.batch}, "
        f"refines {', '.join(stage.rates)}"
        for stage in job.stage
    }


def check(job: Job | TomogramJob) -> dict[str, str]:
    """A job with its data: everything built, nothing computed; the object and the memory it takes."""
    loop = loop_of(job)
    data = loop.data
    loop.check()
    last = len(job.stage) - 1
    model = loop.first_model(last)
    state = eqx.filter_eval_shape(partial(loop.first_state, last), model)
    pixels = math.prod(data.grid.shape)
    counts = sum(n * pixels * kind.itemsize for n, kind in zip(data.n_shots, data.kinds, strict=True))
    loss = build_loss(job.stage[-1], job.run.budget_gib)
    specimen = model.specimen
    slices = specimen.shapes(model.grid).transmission
    rows = descan_statement(job, data) | {"object": " × ".join(map(str, slices.shape)) + " (slice, y, x)"}
    rows |= specimen.summary()
    rows |= {"parameters": megabytes(size_of(model)), "counts": megabytes(counts)}
    rows["held out"] = f"{sum(map(len, loop.held))} of {sum(data.n_shots)} shots"
    return describe_job(job) | rows | plan(loss, model, state, blank_batch(loop), loop.devices).table()


def blank_batch(loop: Loop) -> Batch:
    """A batch of the last stage, without its counts."""
    size = min(loop.job.stage[-1].batch, max(map(len, loop.learn)))
    counts = np.zeros((size, *loop.data.grid.shape), loop.data.kinds[0])
    return even(Batch(np.int32(0), np.zeros(size, np.int32), counts, np.ones(size, np.float32)), loop.devices)


def megabytes(size: int) -> str:
    """`size` [bytes] as people read it."""
    return f"{size / 1e6:.4g} MB"


def _short(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 100 else text[:97] + "…"
