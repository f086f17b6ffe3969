"""A simulated tilt series, and the steps from its patterns to its volume: what `bench_tomography` measures."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from jaxptycho import (
    AberratedProbe,
    Dataset,
    Model,
    amplitude,
    batches,
    init_state,
    make_step,
    misfit,
    per_part,
    read,
)
from jaxptycho.analysis.errors import Alignment
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.data.half_sets import thinned
from jaxptycho.data.ordering import spread
from jaxptycho.inverse.constraints import registry as constraints
from jaxptycho.inverse.solvers.layerwise_adam import layerwise_adam
from jaxptycho.inverse.step import copy_for_donation
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.simulation import run_simulation
from jaxptycho.jobs.steps.simulate import SimulateStep
from jaxptycho.start.guess import first_model
from jaxptycho.tomography.alignment import align
from jaxptycho.tomography.poses import refine_poses, reset_volume
from jaxptycho.tomography.projections import Geometry
from jaxptycho.tomography.series import first_series
from jaxptycho.tomography.views import projected_views, reconstruct_views

VIBRATION = 0.08  # Å
MARGIN = 6.0  # Å of the volume around the particle, in all
SLICES = 8
LOSS = misfit(amplitude)


class Truth(NamedTuple):
    """What was simulated."""

    numbers: np.ndarray
    positions: np.ndarray  # Å (z, y, x)
    poses: Alignment
    entrance: float  # Å, where the defocus was given


def simulated(args, file: Path) -> tuple[Dataset, Truth]:
    """The series and its truth, made if there is no such file."""
    if not file.exists():
        run_simulation(simulation_of(args), file)
    truth = read_truth(file)
    poses = Alignment(
        rotation_matrices(np.deg2rad(truth["angles_deg"])), np.asarray(truth["shift_angstrom"])
    )
    atoms = np.asarray(truth["atomic_numbers"]), np.asarray(truth["atom_positions_angstrom"])
    return read(file), Truth(*atoms, poses, float(truth["origin_angstrom"][0]))


def simulation_of(args) -> SimulateStep:
    """The simulation: points that cover the particle and its shifts in every view."""
    wide, high = 1.1 * args.edge + 12, args.edge + 8
    sections = {
        "kind": "simulate",
        "seed": args.seed,
        "specimen": {"phantom": "platinum_in_alumina", "vibration_angstrom": VIBRATION},
        "microscope": {
            "voltage_kv": args.voltage,
            "semiangle_mrad": args.semiangle,
            "defocus_angstrom": args.defocus,
        },
        "scan": {
            "shape": [int(high / args.step), int(wide / args.step)],
            "step_angstrom": args.step,
            "dose_per_square_angstrom": args.dose,
        },
        "detector": {"pixels": 48, "pixel_angstrom": args.voxel},
        "tilt_series": {"tilts_deg": tilts(args).tolist(), "angle_error_deg": 0.2},
        "sampling": {
            "pixel_angstrom": 0.1,
            "slice_angstrom": 2.0,
            "configurations": 1 if args.quick else args.configurations,
        },
    }
    sections["specimen"]["options"] = {
        "edge": args.edge,
        "core": 0.6 * args.edge,
        "seed": args.seed,
    }
    sections["tilt_series"]["shift_angstrom"] = 3.4
    (step,) = make_job({"step": [sections]}, "the benchmark").step
    assert isinstance(step, SimulateStep)
    return step


def fewer(data: Dataset, positions: float, quanta: float) -> Dataset:
    """Fractions of the positions of every view and of the quanta of every pattern, in memory."""
    data = data if quanta == 1 else thinned(data, fraction=quanta)
    kept = [spread(places, positions, view) for view, places in enumerate(data.positions)]
    counts = [
        np.fft.fftshift(data.patterns(view, own), axes=(1, 2)) for view, own in enumerate(kept)
    ]
    places = [places[own] for places, own in zip(data.positions, kept, strict=True)]
    return Dataset(
        counts, places, data.grid, data.mask, data.tilts, data.probe_guess, dict(data.about)
    )


def tilts(args) -> np.ndarray:
    """Every 10° or nearly so within the range [°]."""
    return np.linspace(
        -args.half_range, args.half_range, args.views or 1 + round(args.half_range / 5)
    )


def of_views(args, data: Dataset, truth: Truth) -> list[Model]:
    """Every view separately."""
    optimiser = per_part(specimen=layerwise_adam(2e-2), probe=optax.adam(1e-3))
    at_axis = args.defocus + truth.entrance  # underfocus is used up on the way there
    first = partial(first_model, specimen="phase", semiangle=1e-3 * args.semiangle, defocus=at_axis)
    found = dict(reconstruct_views(LOSS, data, optimiser, args.batch, args.alone, first=first))
    return [found[view] for view in range(data.n_views)]


def aligned(args, data: Dataset, models: list[Model]) -> Geometry:
    """Shifts from the projections of the views."""
    reach = np.max([np.abs(p).max(0) for p in data.positions], axis=0)
    field = tuple(int(n) for n in 2 * np.floor((reach + 2.0) / args.voxel).astype(int))
    shown = projected_views(models, field)
    nominal = Geometry(data.tilts, np.zeros((data.n_views, 2)))
    across = float(
        np.max(field[1] * args.voxel / (np.cos(data.tilts) + np.abs(np.sin(data.tilts))))
    )
    shape = (int(max(across, args.edge + MARGIN) / args.voxel) + 2, *field)
    rounds = {"bins": (4, 2), "turns": 5, "iterations": 8, "angles": False}
    found = align(
        shown.projections,
        nominal,
        args.voxel,
        shape,
        weights=shown.weights > 0.99,
        free="constant",
        **rounds,
    )
    return Geometry(data.tilts, np.zeros((data.n_views, 2)), found.geometry.shifts)


class Refinement(NamedTuple):
    """Epochs of all views in one volume."""

    epochs: int
    rate: float = 3e-2
    reset_volume: bool = False  # whether the volume is emptied after the poses
    falling: bool = False


def started(args, data: Dataset, geometry: Geometry, probe) -> Model:
    """An empty volume under all views, and the probe of the tilt axis."""
    side = 2 * int((args.edge + MARGIN) / 2 / args.voxel)
    return first_series(
        data, jnp.zeros((side,) * 3), args.voxel, geometry, probe, slices=SLICES, taper=1.0
    )


def lens(args, data: Dataset, truth: Truth) -> AberratedProbe:
    """The probe that the microscope is set to, at the tilt axis."""
    dose = float(np.mean(np.concatenate([data.dose(view) for view in range(data.n_views)])))
    return AberratedProbe(1e-3 * args.semiangle, {"defocus": args.defocus + truth.entrance}, dose)


def end_to_end(args, data: Dataset, model: Model, plan: Refinement) -> Iterator[Model]:
    """The model after every epoch of a refinement, each of which ends with a pose step of every view."""
    steps = plan.epochs * sum(-(-n // args.batch) for n in data.n_shots)
    rate = optax.cosine_decay_schedule(plan.rate, steps, 0.1) if plan.falling else plan.rate
    optimiser = per_part({"specimen.potential": layerwise_adam(rate), "probe": optax.adam(1e-3)})
    step = make_step(LOSS, optimiser, constraints.build("positivity", model))
    model = copy_for_donation(model)
    state = init_state(optimiser, model)
    for epoch in range(plan.epochs):
        for batch in batches(data, args.batch, 1, first_epoch=epoch):
            model, state, _ = step(model, state, batch)
        model = refine_poses(model, data, "shifts" if plan.reset_volume else "all", seed=epoch)
        if plan.reset_volume:
            model = copy_for_donation(reset_volume(model))
            state = init_state(optimiser, model)
        yield model
        model = copy_for_donation(model)


def alignment_of(geometry: Geometry) -> Alignment:
    euler = np.concatenate([np.asarray(geometry.tilts)[:, None], np.asarray(geometry.angles)], 1)
    return Alignment(rotation_matrices(euler.astype(float)), np.asarray(geometry.shifts, float))


def geometry_of(model: Model) -> Geometry:
    """How the views of a model stand."""
    volume = model.specimen
    return Geometry(volume.tilt.values, volume.angles.values, volume.shift.values)
