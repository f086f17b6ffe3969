"""A tilt series from its patterns to its atoms, stage by stage: seconds, alignment, correlation with the truth, atoms.

    python benchmarks/bench_tomography.py [--edge 30] [--epochs 9] [--file FILE] [--pictures FOLDER] [--cold 0] [--json FILE]
    python benchmarks/bench_tomography.py --edge 14 --sweep range
    python benchmarks/bench_tomography.py --edge 14 --sweep fraction --defocus 240

The data are simulated from atoms: a Pt core in a cube of amorphous Al2O3, `edge` Å wide, 13 tilts within ±60°, 1e5 e/Å²
each, 200 kV, 23 mrad, shifts of up to 3.4 Å and angles 0.2° rms that nobody knows. `--file` keeps them for the next
time. The stages, each of which hands over to the next:

    views      a thin specimen for each view by itself, `even_adam(2e-2)`, 30 epochs, the probe from view to view
    align      shifts from their projections, on voxels 4 and 2 times as long; angles stay nominal
    coarse     all views in one volume of 8 slices, `even_adam(3e-2)`, positivity; an epoch, then twice a Newton step
               of every shift, then the volume begins anew, or it would keep the errors of the shifts: four times
    fine       the same without beginning anew, with a falling rate and a pose step of every view after each epoch

`--cold N` adds N epochs of the fine stage from vacuum and nominal poses. What was tried and left: Adam with a moment for
each voxel fills what no view denies (FSC 0.70 instead of 0.82 after 4 epochs with true poses); gradients
accumulated over 13 batches (`optax.MultiSteps`) lag behind those carried from view to view (0.45 after 6); batches of
whole views (0.68 after 6, Adam) behind thirds of them (0.74); an L1 penalty changes little; a constant rate of 4e-2
lets the loss climb after three epochs. From shifts wrong by 0.6 Å, a third of the lattice, no pose step converges.
On two cores, in 2½ minutes after the simulation (1 minute), for 30 Å: shifts from 2.5 Å (worst 4.1) to 0.167 (0.453) aligned,
0.115 (0.318) coarse, 0.093 (0.242) fine, angles from 0.31° to 0.20°; FSC 0.73 on average from 10 to 0.83 Å, 0.57 in the missing
wedge; heavy F1 0.985 with RMSD 0.13 Å, light F1 0.880 (0.829 after 5 epochs of the fine stage). The scan has to hold the particle
and its shifts: where shifts take it over the edge the views align to 1.8 Å only. For 22 Å and 5 epochs: 0.052 (0.121), heavy F1
0.997, light 0.862. With angles in the coarse stage they went
astray by 1.3°, and heavy F1 fell to 0.80; from shifts of 0.155 Å and no coarse stage it was 0.90. A cold
start of the full model from vacuum and nominal poses is nowhere after as long (8 epochs, 114 s: shifts 2.5 Å, FSC 0.04).
The sweeps go through all stages in every case: tilts within ±20° to ±45°, one every 10°, and ½, 1/12 and 1/20 of the
positions beside the same fractions of the dose in all positions (RESULTS.md). `resolution` is where FSC against the truth
falls below 0.5, `one bit` where it falls below √½, as that of a signal as strong as its noise does.
Goals: alignment 0.2 Å on average and 0.5 Å at worst, heavy F1 0.97 with RMSD 0.15 Å, light F1 0.85.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Table, arguments, opening, save

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
from jaxptycho.analysis.errors import Alignment, AlignmentError, alignment_error
from jaxptycho.analysis.potential import atoms_potential
from jaxptycho.analysis.resolution import fixed, fourier_correlation, wedge_correlations
from jaxptycho.analysis.shells import taper
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.app.jobs import make_job
from jaxptycho.app.judging_volume import TrueAtoms, trace
from jaxptycho.app.simulation import build_experiment, write_experiment
from jaxptycho.app.simulation_schema import SimulationJob
from jaxptycho.halves import thinned
from jaxptycho.inverse import constraints
from jaxptycho.inverse.even import even_adam
from jaxptycho.inverse.solve import owned
from jaxptycho.io.native import read_truth
from jaxptycho.order import spread
from jaxptycho.start.guess import first_model
from jaxptycho.tomography.alignment import align
from jaxptycho.tomography.poses import emptied, posed
from jaxptycho.tomography.projections import Geometry
from jaxptycho.tomography.series import first_series
from jaxptycho.tomography.views import projected_views, reconstruct_views

VOXEL, SEMIANGLE, STEP, VIBRATION = 0.35, 23.0, 1.8, 0.08
RANGES, FEWER = (20, 30, 40, 45), (2, 12, 20)  # ° on either side, and one of so many shots or quanta
MARGIN = 6.0  # Å of the volume around the particle, in all
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
        write_experiment(build_experiment(job := job_of(args)), file, job, lambda patterns: None)
    truth = read_truth(file)
    poses = Alignment(rotation_matrices(np.deg2rad(truth["angles_deg"])), np.asarray(truth["shift_angstrom"]))
    atoms = np.asarray(truth["atomic_numbers"]), np.asarray(truth["atom_positions_angstrom"])
    return read(file), Truth(*atoms, poses, float(truth["origin_angstrom"][0]))


def job_of(args) -> SimulationJob:
    """The simulation: points that cover the particle and its shifts in every view."""
    wide, high = 1.1 * args.edge + 12, args.edge + 8
    sections = {
        "specimen": {"phantom": "platinum_in_alumina", "vibration_angstrom": VIBRATION},
        "microscope": {"voltage_kv": 200.0, "semiangle_mrad": SEMIANGLE, "defocus_angstrom": args.defocus},
        "scan": {"shape": [int(high / STEP), int(wide / STEP)], "step_angstrom": STEP, "dose_per_square_angstrom": 1e5},
        "detector": {"pixels": 48, "pixel_angstrom": VOXEL},
        "tilt_series": {"tilts_deg": tilts(args).tolist(), "angle_error_deg": 0.2},
        "sampling": {"pixel_angstrom": 0.1, "slice_angstrom": 2.0, "configurations": 1 if args.quick else 2},
    }
    sections["specimen"]["options"] = {"edge": args.edge, "core": 0.6 * args.edge}
    sections["tilt_series"]["shift_angstrom"] = 3.4
    return make_job(sections, "the benchmark", SimulationJob)


def tilts(args) -> np.ndarray:
    """Every 10° or nearly so within the range [°]."""
    return np.linspace(-args.half_range, args.half_range, args.views or 1 + round(args.half_range / 5))


def of_views(args, data: Dataset, truth: Truth) -> list[Model]:
    """Every view by itself."""
    optimiser = per_part(specimen=even_adam(2e-2), probe=optax.adam(1e-3))
    at_axis = args.defocus + truth.entrance  # underfocus is used up on the way there
    first = partial(first_model, specimen="phase", semiangle=1e-3 * SEMIANGLE, defocus=at_axis)
    found = dict(reconstruct_views(LOSS, data, optimiser, args.batch, args.alone, first=first))
    return [found[view] for view in range(data.n_views)]


def aligned(args, data: Dataset, models: list[Model]) -> Geometry:
    """Shifts from the projections of the views."""
    reach = np.max([np.abs(p).max(0) for p in data.positions], axis=0)
    field = tuple(int(n) for n in 2 * np.floor((reach + 2.0) / VOXEL).astype(int))
    shown = projected_views(models, field)
    nominal = Geometry(data.tilts, np.zeros((data.n_views, 2)))
    across = float(np.max(field[1] * VOXEL / (np.cos(data.tilts) + np.abs(np.sin(data.tilts)))))
    shape = (int(max(across, args.edge + MARGIN) / VOXEL) + 2, *field)
    rounds = {"bins": (4, 2), "turns": 5, "iterations": 8, "angles": False}
    found = align(shown.projections, nominal, VOXEL, shape, weights=shown.weights > 0.99, free="constant", **rounds)
    return Geometry(data.tilts, np.zeros((data.n_views, 2)), found.geometry.shifts)


class Stage(NamedTuple):
    """Epochs of all views in one volume."""

    epochs: int
    rate: float
    anew: bool = False  # whether the volume begins anew after the poses
    falling: bool = False


def end_to_end(args, data: Dataset, model: Model, stage: Stage) -> Model:
    """The model after the epochs of a stage, each followed by a pose step of every view."""
    steps = stage.epochs * sum(-(-n // args.batch) for n in data.n_shots)
    rate = optax.cosine_decay_schedule(stage.rate, steps, 0.1) if stage.falling else stage.rate
    optimiser = per_part({"specimen.potential": even_adam(rate), "probe": optax.adam(1e-3)})
    step = make_step(LOSS, optimiser, constraints.build("positivity", model))
    model = owned(model)
    state = init_state(optimiser, model)
    for epoch in range(stage.epochs):
        for batch in batches(data, args.batch, 1, first_epoch=epoch):
            model, state, _ = step(model, state, batch)
        model = posed(model, data, "shifts" if stage.anew else "all", seed=epoch)
        if stage.anew:
            model = owned(emptied(model))
            state = init_state(optimiser, model)
    return model


def alignment_of(geometry: Geometry) -> Alignment:
    euler = np.concatenate([np.asarray(geometry.tilts)[:, None], np.asarray(geometry.angles)], 1)
    return Alignment(rotation_matrices(euler.astype(float)), np.asarray(geometry.shifts, float))


def geometry_of(model: Model) -> Geometry:
    """How the views of a model stand."""
    volume = model.specimen
    return Geometry(volume.tilt.values, volume.angles.values, volume.shift.values)


def judged(args, truth: Truth, model: Model, error: AlignmentError, picture: Path | None = None) -> dict:
    """Correlation with the true potential, and atoms, after the true ones were moved to where ours must be."""
    volume = np.asarray(model.specimen.potential, float)
    places = (truth.positions - error.translation) @ error.rotation.T
    b = np.full(len(places), 8 * np.pi**2 * VIBRATION**2)
    known = atoms_potential(truth.numbers, places, b, volume.shape, VOXEL)
    window = taper(volume.shape, 0.1)
    whole = fourier_correlation(volume, known, VOXEL, window)
    wedge = wedge_correlations(volume, known, VOXEL, tuple(np.deg2rad([-1, 1]) * args.half_range), window).outside
    row = {"resolution_A": whole.resolution(fixed(0.5)), "fsc": mean(whole), "wedge": mean(wedge)}
    row["one_bit_A"] = whole.resolution(fixed(0.5**0.5))  # a signal as strong as the noise, beside a truth without
    if picture is not None:
        draw(volume, known, picture)
    traced = trace(volume, TrueAtoms(truth.numbers, places, b), np.full(3, VOXEL), row["resolution_A"])
    for name, score in ({} if traced is None else traced.classes).items():
        row |= {name: score.f1, f"{name}_rmsd_A": float(np.sqrt(np.sum(score.rmsd**2)))}
    return row


def mean(curve) -> float:
    """The mean correlation from 10 to 0.83 Å."""
    chosen = (curve.frequency > 0.1) & (curve.frequency < 1.2)
    return float(np.nanmean(curve.correlation[chosen]))


def draw(volume, known, path: Path):
    """Middle sections and sums along all axes, found above true."""
    from matplotlib.figure import Figure

    figure, n = Figure((15, 5)), len(volume) // 2
    for row, values in enumerate((volume, known)):
        for axis in range(3):
            for column, image in ((axis, values.take(n, axis)), (3 + axis, values.sum(axis))):
                own = figure.add_subplot(2, 6, 6 * row + column + 1)
                own.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 99.7))
                own.axis("off")
    figure.savefig(path, dpi=70)


class Series(NamedTuple):
    """A case: what is printed of each of its stages, and under which name."""

    args: argparse.Namespace
    table: Table
    rows: list[dict]
    case: str = ""

    def line(self, stage, began, truth, geometry, model=None):
        took = time.perf_counter() - began
        error = alignment_error(alignment_of(geometry), truth.poses, VOXEL)
        row = {"case": self.case, "stage": stage, "s": took, "angle_deg": error.angles().mean()}
        row |= {"shift_A": error.distances().mean(), "worst_A": error.distances().max()}
        if model is not None:
            folder = self.args.pictures
            picture = None if folder is None else folder / f"{self.case}{stage}.png"
            row |= judged(self.args, truth, model, error, picture)
        self.rows.append(row)
        self.table.line(**row)

    def run(self, file: Path) -> None:
        """All stages on the data of a file, or on what is simulated into it."""
        args, began = self.args, time.perf_counter()
        data, truth = simulated(args, file)
        data = fewer(data, args.fraction, args.dose_fraction)
        nominal = Geometry(data.tilts, np.zeros((data.n_views, 2)))
        self.line("simulated", began, truth, nominal)
        side = 2 * int((args.edge + MARGIN) / 2 / VOXEL)
        empty, begin = jnp.zeros((side,) * 3), time.perf_counter()
        views = of_views(args, data, truth)
        self.line("views", begin, truth, nominal)
        begin = time.perf_counter()
        geometry = aligned(args, data, views)
        self.line("align", begin, truth, geometry)
        model = first_series(data, empty, VOXEL, geometry, views[-1].probe, slices=8, taper=1.0)
        begin = time.perf_counter()
        model = end_to_end(args, data, model, Stage(1 if args.quick else 4, 3e-2, anew=True))
        self.line("coarse", begin, truth, geometry_of(model))
        begin = time.perf_counter()
        model = end_to_end(args, data, model, Stage(args.epochs, 3e-2, falling=True))
        self.line("fine", begin, truth, geometry_of(model), model)
        if args.cold:
            dose = float(np.mean(np.concatenate([data.dose(view) for view in range(data.n_views)])))
            lens = AberratedProbe(1e-3 * SEMIANGLE, {"defocus": args.defocus + truth.entrance}, dose)
            begin = time.perf_counter()
            model = first_series(data, empty, VOXEL, nominal, lens, slices=8, taper=1.0)
            model = end_to_end(args, data, model, Stage(args.cold, 3e-2, falling=True))
            self.line("cold", begin, truth, geometry_of(model), model)


def fewer(data: Dataset, positions: float, quanta: float) -> Dataset:
    """Fractions of the positions of every view and of the quanta of every pattern."""
    data = data if quanta == 1 else thinned(data, fraction=quanta)
    return data if positions == 1 else data.subset([spread(p, positions, v) for v, p in enumerate(data.positions)])


def cases(args) -> dict[str, argparse.Namespace]:
    """The options of every case of a sweep by its name; steps stay as many where there are fewer shots."""
    if args.sweep is None:
        changes = {"": {}}
    elif args.sweep == "range":
        changes = {f"±{half}°": {"half_range": half} for half in RANGES}
    else:
        changes = {"all": {}}
        for n in FEWER[: 1 if args.quick else None]:
            changes[f"1/{n} shots"] = {"fraction": 1 / n, "batch": max(1, round(args.batch / n))}
            changes[f"1/{n} dose"] = {"dose_fraction": 1 / n}
    return {name: argparse.Namespace(**vars(args) | change) for name, change in changes.items()}


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--edge", type=float, default=30.0, help="Å, of the particle")
    parser.add_argument("--half-range", type=float, default=60.0, help="°, the largest tilt")
    parser.add_argument("--views", type=int, help="default: every 10°")
    parser.add_argument("--defocus", type=float, default=120.0, help="Å, at the entrance of the particle")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the positions that is used")
    parser.add_argument("--dose-fraction", type=float, default=1.0, help="of the quanta that is used")
    parser.add_argument("--sweep", choices=["range", "fraction"], help="a table of tilt ranges, or of fractions")
    parser.add_argument("--epochs", type=int, default=9, help="of the fine stage")
    parser.add_argument("--cold", type=int, default=0, help="epochs from vacuum and nominal poses")
    parser.add_argument("--batch", type=int, default=105)
    parser.add_argument("--alone", type=int, default=30, help="epochs of each view by itself")
    parser.add_argument(
        "--file", type=Path, help="where the simulated series is kept, for each range of a sweep its own"
    )
    parser.add_argument("--pictures", type=Path, help="folder")
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    if args.quick:
        args.edge, args.half_range, args.views, args.epochs, args.alone = 8.0, 20.0, 3, 1, 5
    opening()
    rows = []
    table = Table(
        case="<11s", stage="<10s", s=">6.0f", shift_A=">8.3f", worst_A=">8.3f", angle_deg=">9.3f", fsc=">6.3f",
        wedge=">6.3f", resolution_A=">12.2f", one_bit_A=">9.2f", heavy=">6.3f", heavy_rmsd_A=">12.3f", light=">6.3f",
        light_rmsd_A=">12.3f",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or Path(folder) / "series.h5"
        for case, own in cases(args).items():
            kept = file.with_stem(f"{file.stem}_{own.half_range}") if args.sweep == "range" else file
            Series(own, table, rows, case).run(kept)
    save(args, rows, device=str(jax.devices()[0]))


if __name__ == "__main__":
    main()
