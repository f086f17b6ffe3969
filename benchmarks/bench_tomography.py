"""A tilt series from its patterns to its atoms, step by step: seconds, alignment, correlation with the truth, atoms.

    python benchmarks/bench_tomography.py [--edge 30] [--epochs 9] [--file FILE] [--pictures FOLDER] [--json FILE]
    python benchmarks/bench_tomography.py --edge 14 --sweep range
    python benchmarks/bench_tomography.py --edge 14 --sweep fraction --defocus 240 --voltage 80 --semiangle 25 \\
        --views 25 --step 0.8 --voxel 0.41 --dose 1.2e6 --configurations 3 --batch 460 --alone 20 --coarse 3 --epochs 5
    python benchmarks/bench_tomography.py --edge 14 --epochs 5 --cold 3

The data are simulated from atoms: a Pt core in a cube of amorphous Al2O3, `edge` Å wide, 13 tilts within ±60°, 1e5 e/Å²
each, 200 kV, 23 mrad, shifts of up to 3.4 Å and angles 0.2° rms that nobody knows. `--file` keeps them for the next
time. The steps, each of which hands over to the next:

    views      a thin specimen for each view separately, `layerwise_adam(2e-2)`, 30 epochs, the probe from view to view
    align      shifts from their projections, on voxels 4 and 2 times as long; angles stay nominal
    coarse     all views in one volume of 8 slices, `layerwise_adam(3e-2)`, positivity; an epoch, then twice a Newton step
               of every shift, then the volume is emptied, or it would keep the errors of the shifts: four times
    fine       the same without emptying it, with a falling rate and a pose step of every view after each epoch

`--cold N` adds the fine step from vacuum and the microscope's settings, N times as long as all steps took or until it has
their FSC: once from nominal poses, once told the shifts that the steps had found. What was tried and left: Adam with a moment for
each voxel fills what no view denies (FSC 0.70 instead of 0.82 after 4 epochs with true poses); gradients
accumulated over 13 batches (`optax.MultiSteps`) lag behind those carried from view to view (0.45 after 6); batches of
whole views (0.68 after 6, Adam) behind thirds of them (0.74); an L1 penalty changes little; a constant rate of 4e-2
lets the loss climb after three epochs. From shifts wrong by 0.6 Å, a third of the lattice, no pose step converges.
On two cores, in 2½ minutes after the simulation (1 minute), for 30 Å: shifts from 2.5 Å (worst 4.1) to 0.167 (0.453) aligned,
0.115 (0.318) coarse, 0.093 (0.242) fine, angles from 0.31° to 0.20°; FSC 0.73 on average from 10 to 0.83 Å, 0.57 in the missing
wedge; heavy F1 0.985 with RMSD 0.13 Å, light F1 0.880 (0.829 after 5 epochs of the fine step). The scan has to hold the particle
and its shifts: where shifts take it over the edge the views align to 1.8 Å only. For 22 Å and 5 epochs: 0.052 (0.121), heavy F1
0.997, light 0.862. With angles in the coarse step they went
astray by 1.3°, and heavy F1 fell to 0.80; from shifts of 0.155 Å and no coarse step it was 0.90.
The sweeps go through all steps in every case: tilts within ±20° to ±45°, one every 10°, and ½, 1/12 and 1/20 of the
positions beside the same fractions of the dose in all positions (RESULTS.md). `resolution` is where FSC against the truth
falls below 0.5, `one bit` where it falls below √½, as that of a signal as strong as its noise does, `seen` the same within
the tilts. Sub-sampling wants a scan that is denser than it has to be; a detector that reaches twice as far as the probe
(200 kV, 23 mrad, 1.33 times: one bit at 1.04 Å for a quarter and a twelfth of the positions alike, 0.87 Å at 80 kV, 25 mrad, 2.0
times: probably since what is scattered further comes back on the other side of the model's window); and tilts close enough
for the detail (every 10° 0.87 Å, every 5° 0.84 Å, of a Nyquist of 0.82 Å). `cpu s` are those of all cores, `zyx` RMSDs along the axes.
Goals: alignment 0.2 Å on average and 0.5 Å at worst, heavy F1 0.97 with RMSD 0.15 Å, light F1 0.85.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from common import Table, arguments, opening, save
from series import (
    VIBRATION,
    Refinement,
    Truth,
    aligned,
    alignment_of,
    end_to_end,
    fewer,
    geometry_of,
    lens,
    of_views,
    simulated,
    started,
)

from jaxptycho import Model
from jaxptycho.analysis.assignment import Score
from jaxptycho.analysis.errors import AlignmentError, alignment_error
from jaxptycho.analysis.resolution import (
    FourierCorrelation,
    fixed,
    fourier_correlation,
    wedge_correlations,
)
from jaxptycho.analysis.shells import taper
from jaxptycho.reports.evaluate_volume import TrueAtoms, trace
from jaxptycho.tomography.projections import Geometry

RANGES, FEWER = (
    (20, 30, 40, 45),
    (2, 12, 20),
)  # ° on either side, and one of so many shots or quanta
SIGNAL = fixed(0.5**0.5)  # a signal as strong as the noise, beside a truth without: one bit


class Judged(NamedTuple):
    """A volume against the truth."""

    row: dict
    curve: FourierCorrelation
    scores: Mapping[str, Score]


class Beside(NamedTuple):
    """A volume, and what it should show."""

    found: np.ndarray  # V
    atoms: TrueAtoms
    known: np.ndarray  # V
    window: np.ndarray

    def curve(self, voxel: float) -> FourierCorrelation:
        return fourier_correlation(self.found, self.known, voxel, self.window)


def beside(args, truth: Truth, model: Model, error: AlignmentError) -> Beside:
    """The true atoms and their potential, moved to where ours must be."""
    volume = np.asarray(model.specimen.potential, float)
    places = (truth.positions - error.translation) @ error.rotation.T
    atoms = TrueAtoms(truth.numbers, places, np.full(len(places), 8 * np.pi**2 * VIBRATION**2))
    return Beside(
        volume, atoms, atoms.potential(volume.shape, args.voxel), taper(volume.shape, 0.1)
    )


def judged(
    args, truth: Truth, model: Model, error: AlignmentError, picture: Path | None = None
) -> Judged:
    """Correlation with the true potential, and atoms."""
    pair = beside(args, truth, model, error)
    volume, atoms, known, window = pair
    whole, ends = pair.curve(args.voxel), tuple(np.deg2rad([-1, 1]) * args.half_range)
    parts = wedge_correlations(volume, known, args.voxel, ends, window)
    row = {
        "resolution_A": whole.resolution(fixed(0.5)),
        "fsc": mean(whole),
        "wedge": mean(parts.outside),
    }
    row |= {"one_bit_A": whole.resolution(SIGNAL), "seen_A": parts.inside.resolution(SIGNAL)}
    row["curve"] = np.round(whole.correlation, 4).tolist()
    if picture is not None:
        draw(volume, known, picture)
    traced = trace(volume, atoms, np.full(3, args.voxel), row["resolution_A"])
    scores = {} if traced is None else traced.classes
    for name, score in scores.items():
        row |= {name: score.f1, f"{name}_rmsd_A": score.rmsd.tolist()}  # z, y, x
        row[f"{name}_zyx"] = "/".join(f"{value:.2f}" for value in score.rmsd)
    return Judged(row, whole, scores)


def mean(curve) -> float:
    """The mean correlation from 10 to 0.83 Å."""
    chosen = (curve.frequency > 0.1) & (curve.frequency < 1.2)
    return float(np.nanmean(curve.correlation[chosen]))


def draw(volume, known, path: Path):
    """Middle sections and sums along all axes, found above true."""
    from matplotlib.figure import Figure

    figure, n = Figure((15, 5), layout="constrained"), len(volume) // 2
    for row, values in enumerate((volume, known)):
        for axis in range(3):
            for column, image in ((axis, values.take(n, axis)), (3 + axis, values.sum(axis))):
                own = figure.add_subplot(2, 6, 6 * row + column + 1)
                own.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 99.7))
                own.axis("off")
    figure.savefig(path, dpi=70)


def summarise(folder: Path, found: Mapping[str, Judged]) -> None:
    """Correlations of all cases in one figure, and their atoms in another."""
    from jaxptycho.figures.atoms import draw_scores
    from jaxptycho.figures.plots import save
    from jaxptycho.figures.resolution import draw_directions

    save(
        draw_directions({name or "all": one.curve for name, one in found.items()}, SIGNAL),
        folder / "curves.png",
    )
    save(
        draw_scores({name or "all": one.scores for name, one in found.items()}),
        folder / "scores.png",
    )


class Series(NamedTuple):
    """A case: what is printed of each of its steps, and under which name."""

    args: argparse.Namespace
    table: Table
    rows: list[dict]
    case: str = ""

    def line(self, step, clock: "Clock", truth, geometry, model=None, **more) -> Judged | None:
        error = alignment_error(alignment_of(geometry), truth.poses, self.args.voxel)
        row = {"case": self.case, "step": step, "s": clock.wall, "cpu_s": clock.cpu} | more
        row |= {"shift_A": error.distances().mean(), "worst_A": error.distances().max()}
        row["angle_deg"] = error.angles().mean()
        found = None
        if model is not None:
            folder = self.args.pictures
            name = f"{self.case} {step}.png".strip().replace("/", "of").replace(" ", "_")
            picture = None if folder is None else folder / name
            found = judged(self.args, truth, model, error, picture)
            row |= found.row
        self.rows.append(row)
        self.table.line(**row)
        return found

    def run(self, file: Path) -> Judged:
        """All steps on the data of a file, or on what is simulated into it."""
        args, clock = self.args, Clock()
        with clock:
            data, truth = simulated(args, file)
            data = fewer(data, args.fraction, args.dose_fraction)
        nominal = Geometry(data.tilts, np.zeros((data.n_views, 2)))
        self.line("simulated", clock, truth, nominal)
        clocks = [Clock() for _ in range(4)]
        with clocks[0]:
            views = of_views(args, data, truth)
        self.line("views", clocks[0], truth, nominal)
        with clocks[1]:
            geometry = aligned(args, data, views)
        self.line("align", clocks[1], truth, geometry)
        model = started(args, data, geometry, views[-1].probe)
        for step, clock in zip(("coarse", "fine"), clocks[2:], strict=True):
            coarse = step == "coarse"
            plan = (
                Refinement(args.coarse, reset_volume=True)
                if coarse
                else Refinement(args.epochs, falling=True)
            )
            epochs = end_to_end(args, data, model, plan)
            for _ in range(plan.epochs):
                with clock:
                    model = next(epochs)
            found = self.line(step, clock, truth, geometry_of(model), None if coarse else model)
        assert found is not None
        if args.cold:
            spent, epoch = (
                sum(clock.cpu for clock in clocks),
                min(clocks[-1].laps),
            )  # what no epoch but the first compiles
            plan = Refinement(math.ceil(args.cold * spent / epoch), falling=True)
            for name, start in (("cold", nominal), ("cold, told", geometry)):
                self.cold(
                    name,
                    data,
                    truth,
                    started(args, data, start, lens(args, data, truth)),
                    plan,
                    found,
                )
        return found

    def cold(
        self, name: str, data, truth: Truth, model: Model, plan: Refinement, wanted: Judged
    ) -> None:
        """The full model from vacuum, until its FSC is that of the steps together or its time is up."""
        clock, more, epochs = Clock(), {}, end_to_end(self.args, data, model, plan)
        for _ in range(plan.epochs):
            with clock:
                model = next(epochs)
            error = alignment_error(alignment_of(geometry_of(model)), truth.poses, self.args.voxel)
            if mean(beside(self.args, truth, model, error).curve(self.args.voxel)) >= mean(
                wanted.curve
            ):
                more = {"reached_s": clock.cpu}
                break
        self.line(name, clock, truth, geometry_of(model), model, **more)


class Clock:
    """Seconds within its `with` statements, on the wall and of all cores."""

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.laps = []  # seconds of all cores, of every statement

    def __enter__(self):
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *error):
        self.wall += time.perf_counter() - self.began[0]
        self.laps.append(time.process_time() - self.began[1])
        self.cpu += self.laps[-1]


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
    parser.add_argument(
        "--seed", type=int, default=0, help="of the particle, its shifts, its angles and all noise"
    )
    parser.add_argument("--half-range", type=float, default=60.0, help="°, the largest tilt")
    parser.add_argument("--views", type=int, help="default: every 10°")
    parser.add_argument(
        "--defocus", type=float, default=120.0, help="Å, at the entrance of the particle"
    )
    parser.add_argument("--voltage", type=float, default=200.0, help="kV")
    parser.add_argument("--semiangle", type=float, default=23.0, help="mrad")
    parser.add_argument("--step", type=float, default=1.8, help="Å, of the scan")
    parser.add_argument(
        "--voxel", type=float, default=0.35, help="Å, of the volume and of the detector's object"
    )
    parser.add_argument("--dose", type=float, default=1e5, help="electrons/Å² of each view")
    parser.add_argument("--configurations", type=int, default=2, help="of the vibrations")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the positions that is used")
    parser.add_argument(
        "--dose-fraction", type=float, default=1.0, help="of the quanta that is used"
    )
    parser.add_argument(
        "--sweep", choices=["range", "fraction"], help="a table of tilt ranges, or of fractions"
    )
    parser.add_argument("--epochs", type=int, default=9, help="of the fine step")
    parser.add_argument("--coarse", type=int, default=4, help="epochs of the coarse step")
    parser.add_argument(
        "--cold", type=float, default=0, help="starts from vacuum, for so many times as long"
    )
    parser.add_argument("--batch", type=int, default=105)
    parser.add_argument("--alone", type=int, default=30, help="epochs of each view by itself")
    parser.add_argument(
        "--file",
        type=Path,
        help="where the simulated series is kept, for each range of a sweep its own",
    )
    parser.add_argument("--pictures", type=Path, help="folder")
    args = parser.parse_args()
    if args.pictures:
        args.pictures.mkdir(parents=True, exist_ok=True)
    if args.quick:
        args.edge, args.half_range, args.views, args.epochs, args.alone, args.coarse = (
            8.0,
            20.0,
            3,
            1,
            5,
            1,
        )
    opening()
    rows, found = [], {}
    table = Table(
        case="<11s", step="<10s", s=">6.0f", cpu_s=">6.0f", shift_A=">8.3f", worst_A=">8.3f", angle_deg=">9.3f", fsc=">6.3f",
        wedge=">6.3f", resolution_A=">12.2f", one_bit_A=">9.3f", seen_A=">7.3f", heavy=">6.3f", heavy_zyx=">14s",
        light=">6.3f", light_zyx=">14s", reached_s=">9.0f",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or Path(folder) / "series.h5"
        for case, own in cases(args).items():
            kept = (
                file.with_stem(f"{file.stem}_{own.half_range}") if args.sweep == "range" else file
            )
            found[case] = Series(own, table, rows, case).run(kept)
            save(
                args, rows, device=str(jax.devices()[0])
            )  # what is measured is not lost with what is not
    if args.pictures:
        summarise(args.pictures, found)


if __name__ == "__main__":
    main()
