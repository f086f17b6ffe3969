"""What each prior is worth where a tilt series measures nothing: the missing wedge, against the truth.

    python benchmarks/bench_wedge.py [--tilts 13] [--highest 60] [--epochs 12] [--dose 1e5] [--json FILE]

A cube of amorphous alumina around a core of Pt; patterns by the simulator, which turns atoms and is finer than any
reconstruction; probe, positions and angles known. Every line starts from vacuum, with Adam carried from view to view
and a cosine schedule, and adds one prior to positivity; `all` has several, and `atoms` are traced in the
volume of `atomicity` and refined from the diffraction. FSC against the true potential: mean up to 2 Å and the resolution at 0.5, in
the wedge and out of it; `emptied` is the truth without its wedge. As many atoms as there are, the highest maxima first, count as found within 0.7 Å.
"""

import time
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Table, arguments, opening, save
from scipy.ndimage import gaussian_filter

from jaxptycho import (
    Atoms,
    Dataset,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    Volume,
    amplitude,
    init_state,
    make_batch,
    make_step,
    misfit,
    per_part,
)
from jaxptycho.analysis.assignment import compare_atoms
from jaxptycho.analysis.peaks import find_peaks
from jaxptycho.analysis.resolution import fixed, wedge_correlations
from jaxptycho.analysis.shells import shells, soft_mask, wedge
from jaxptycho.analysis.tracing import atoms_of
from jaxptycho.inverse.constraints.registry import all_of, build
from jaxptycho.inverse.penalties import sum_of, total_variation
from jaxptycho.inverse.solvers.preconditioning import measured, shell_growth
from jaxptycho.inverse.step import copy_for_donation, identity
from jaxptycho.physics.volumes import depth_of
from jaxptycho.simulate.experiment import Experiment, Sampling, simulate
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.phantoms import platinum_in_alumina
from jaxptycho.simulate.scan import raster

VOXEL, SLICES, SEMIANGLE, VIBRATION = 0.4, 6, 25.0, 0.08  # Å, mrad, Å
TO = 2.0  # Å
EPS = 0.3  # of Adam, quanta per radian: the noise of a voxel's gradient; hardly illuminated voxels would run away


class Case(NamedTuple):
    """What is measured, and what is true."""

    experiment: Experiment
    data: Dataset
    model: Model  # vacuum
    truth: np.ndarray  # V
    tilts: np.ndarray  # rad


class Prior(NamedTuple):
    """What a line adds: a constraint after every epoch, a penalty, or a preconditioner."""

    project: tuple = ()
    penalty: tuple = ()
    before: tuple = ()


def case_of(args) -> Case:
    """A simulated series, and the empty model that it starts from."""
    tilts = np.deg2rad(np.linspace(-args.highest, args.highest, args.tilts))
    grid, lens = Grid((32, 32), VOXEL, voltage_kv=80.0), Microscope(1e-3 * SEMIANGLE, 30.0)
    step = 2 * args.edge / 3 / 7
    points = int(args.edge / step) + 1
    experiment = Experiment(
        atoms=platinum_in_alumina(args.edge, 0.55 * args.edge),
        grid=grid,
        microscope=lens,
        scan=raster((points, points), step),
        dose=args.dose * step**2,
        sampling=Sampling(0.2, 1.0),
        vibration=0.0,
        tilts=tuple(tilts),
    )
    counts = np.zeros((args.tilts, points**2, *grid.shape), np.uint16)
    for view, block, own in simulate(experiment):
        counts[view, block] = own
    places = np.stack([view.positions for view in experiment.views])
    data = Dataset(counts, places, grid)
    side = 2 * round(1.35 * args.edge / (2 * VOXEL))
    field = 2 * int(np.ceil(np.abs(places).max() / VOXEL) + grid.shape[0] // 2 + 2)
    depth = depth_of((side,) * 3, (VOXEL,) * 3, SLICES, tilts)
    empty = Volume(
        jnp.zeros((side,) * 3, jnp.float32),
        VOXEL,
        PerView(jnp.asarray(tilts, jnp.float32)),
        SLICES,
        depth=depth,
        shape=(field, field),
        kernel="linear",
    )
    # the simulator's probe is defined at the entrance face of its box, ours at that of the volume
    lower = float(-experiment.box.origin[0] - depth / 2 * VOXEL)
    probe = lens.probe(experiment.dose, -lower)
    model = Model(probe, empty, FreeScan(PerView(PerShot(jnp.asarray(places, jnp.float32)))), grid)
    return Case(experiment, data, model, voxels(truth_of(experiment, empty)), tilts)


def truth_of(experiment: Experiment, volume: Volume) -> Atoms:
    """The true atoms, sliced as finely as the volume's voxels."""
    (n, _, _), middle = volume.potential.shape, volume.potential.shape[0] // 2 * VOXEL
    heights = experiment.atoms.positions[:, ::-1] + np.array([middle + VOXEL / 2, 0, 0])
    vibration = 8 * np.pi**2 * VIBRATION**2
    return Atoms(
        experiment.atoms.numbers,
        jnp.asarray(heights),
        (n, n),
        VOXEL,
        n,
        (-middle, -middle),
        vibration,
    )


def voxels(atoms: Atoms) -> np.ndarray:
    """The mean potential [V] of every slice of atoms that are not turned."""
    grid = Grid((32, 32), VOXEL, voltage_kv=80.0)
    phase = jnp.angle(eqx.filter_jit(lambda part: part.slices(grid).transmission)(atoms))
    return np.asarray(phase) / (grid.sigma * float(atoms.thickness))


def reconstructed(case: Case, prior: Prior, epochs: int, rate=2e-2):
    """The model after some epochs, and its mean loss in the last."""
    schedule = optax.cosine_decay_schedule(rate, epochs * case.data.n_views)
    adam = optax.adam(schedule, eps=EPS)
    return refined(
        case, case.model, per_part(specimen=optax.chain(*prior.before, adam)), prior, epochs
    )


def refined(case: Case, model: Model, optimiser, prior: Prior, epochs: int):
    """Every epoch all views in random order, then the constraints."""
    views = case.data.n_views
    penalty = sum_of(*prior.penalty) if prior.penalty else None
    step, state = (
        make_step(misfit(amplitude), optimiser, penalty=penalty),
        init_state(optimiser, model),
    )
    project = eqx.filter_jit(all_of(*prior.project)) if prior.project else identity
    batches = [
        jax.tree.map(jnp.asarray, make_batch(case.data, v, range(case.data.n_shots[v])))
        for v in range(views)
    ]
    model, rng = copy_for_donation(model), np.random.default_rng(0)
    for _ in range(epochs):
        losses = []
        for view in rng.permutation(views):
            model, state, info = step(model, state, batches[view])
            losses.append(info["loss"])
        model = project(model)
    return model, float(jnp.mean(jnp.stack(losses)))


def judged(case: Case, found: np.ndarray, positions=None) -> dict:
    """FSC in the wedge and outside of it, and the atoms."""
    near = gaussian_filter(case.truth, 1.0 / VOXEL)
    window = soft_mask(near > 0.1 * near.max(), 3.0, VOXEL)  # where the beam was in every view
    both = wedge_correlations(
        case.truth, found, VOXEL, (case.tilts.min(), case.tilts.max()), window
    )
    row = {}
    for name, curve in (("wedge", both.outside), ("seen", both.inside)):
        upto = (curve.frequency > 0) & (curve.frequency <= 1 / TO)
        row |= {
            f"{name}_fsc": float(np.nanmean(curve.correlation[upto])),
            f"{name}_A": curve.resolution(fixed(0.5)),
        }
    true = case.experiment.atoms.positions[:, ::-1]
    if positions is None:
        found = window * found
        peaks = find_peaks(found, VOXEL, 0.02 * found.max(), 1.4, smooth=0.4)
        positions = (
            peaks.positions[np.argsort(-peaks.integral)][: len(true)] - found.shape[0] // 2 * VOXEL
        )
    compared = compare_atoms(positions, true)
    heavy = case.experiment.atoms.numbers == 78
    pt = compare_atoms(positions, true[heavy])
    rmsd = compared.overall.rmsd
    return row | {
        "F1": compared.overall.f1,
        "Pt": pt.overall.recall,
        "rms_yx": float(rmsd[1:].mean()),
        "rms_z": rmsd[0],
    }


def emptied(case: Case) -> np.ndarray:
    """The truth without its wedge [V]: what is correlated there is the window's doing."""
    kept = wedge(case.tilts.min(), case.tilts.max())(shells(case.truth.shape, VOXEL, half=False).k)
    return np.fft.ifftn(kept * np.fft.fftn(case.truth)).real


def priors(case: Case, args, low: Model) -> dict[str, Prior]:
    """One for every line."""
    positive = build("positivity", case.model)
    support = build("support", low, blur_angstrom=1.0, threshold=0.05, edge_angstrom=1.0)
    atoms = len(case.experiment.atoms)
    steps = case.data.n_views * args.epochs // 2
    tv = total_variation(weight=args.tv, along="volume")
    atomic = build("atomicity", case.model, atoms=atoms, distance_angstrom=1.6, strength=0.3)
    return {
        "none": Prior(),
        "positivity": Prior((positive,)),
        "support": Prior((positive, support)),
        "shells": Prior((positive,), before=(shell_growth(0.25, 1.2, steps, 0.1),)),
        "TV": Prior((positive,), (tv,)),
        "W(k)": Prior((positive,), before=(measured(SEMIANGLE, args.edge),)),
        "atomicity": Prior((positive, atomic)),
        "all": Prior((positive, support, atomic), (tv,)),
    }


def traced_and_refined(case: Case, volume: Volume, epochs: int):
    """Atoms of a volume after some epochs of their own: their potential [V] and places [Å from the axis], and the loss."""
    threshold = 0.02 * float(jnp.max(volume.potential))
    atoms = atoms_of(volume, ["O", "Al", "Pt"], threshold, 1.4, smooth=0.4, debye_waller=0.5)
    model = eqx.tree_at(lambda m: m.specimen, case.model, atoms)
    rate = optax.cosine_decay_schedule(5e-2, epochs * case.data.n_views)
    names = ("positions", "debye_waller", "occupancy")
    optimiser = per_part({f"specimen.{name}": optax.adam(rate) for name in names})

    def project(model):
        clipped = jnp.clip(model.specimen.debye_waller, 0.1, 8.0)
        return eqx.tree_at(lambda m: m.specimen.debye_waller, model, clipped)

    model, loss = refined(case, model, optimiser, Prior((project,)), epochs)
    found, like = model.specimen, truth_of(case.experiment, volume)
    places = np.asarray(found.positions) - np.array([float(found.axis), 0, 0])
    heights = jnp.asarray(places + np.array([(like.n_slices // 2 + 0.5) * VOXEL, 0, 0]))
    shown = replace(
        like,
        numbers=found.numbers,
        positions=heights,
        debye_waller=found.debye_waller,
        occupancy=found.occupancy,
    )
    return (voxels(shown), places[np.argsort(-np.asarray(found.occupancy))]), loss


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--tilts", type=int, default=13)
    parser.add_argument("--highest", type=float, default=60.0, help="tilt [°]")
    parser.add_argument("--edge", type=float, default=11.0, help="of the cube [Å]")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--dose", type=float, default=1e5, help="electrons/Å² of each view")
    parser.add_argument("--tv", type=float, default=50.0, help="weight of the total variation")
    parser.add_argument("--only", nargs="*", help="these lines")
    args = parser.parse_args()
    if args.quick:
        args.tilts, args.edge, args.epochs = 7, 8.0, 8
    opening()
    case = case_of(args)
    print(f"{len(case.experiment.atoms)} atoms, {case.data.n_views} × {case.data.n_shots[0]} patterns, "
          f"volume {case.truth.shape}")  # fmt: skip
    low, _ = reconstructed(
        case, Prior((build("positivity", case.model),), before=(shell_growth(0.3, 0.3, 1, 0.1),)), 5
    )
    table = Table(
        prior="<10s", loss=">8.2f", wedge_fsc=">9.3f", wedge_A=">8.2f", seen_fsc=">9.3f", seen_A=">8.2f",
        F1=">6.3f", Pt=">6.3f", rms_yx=">7.3f", rms_z=">7.3f", s=">6.1f",
    )  # fmt: skip
    rows, results = [{"prior": "emptied"} | judged(case, emptied(case))], {}
    table.line(**rows[0])
    for name, prior in priors(case, args, low).items():
        if args.only and name not in args.only:
            continue
        start = time.perf_counter()
        model, loss = reconstructed(case, prior, args.epochs)
        found = results[name] = model
        row = {"prior": name, "loss": loss, "s": time.perf_counter() - start}
        rows.append(row | judged(case, np.asarray(found.specimen.potential, float)))
        table.line(**rows[-1])
    start = time.perf_counter()
    traced, loss = traced_and_refined(case, results.get("atomicity", model).specimen, args.epochs)
    rows.append(
        {"prior": "atoms", "loss": loss, "s": time.perf_counter() - start} | judged(case, *traced)
    )
    table.line(**rows[-1])
    save(
        args,
        rows,
        **{
            name: getattr(args, name)
            for name in ("tilts", "highest", "edge", "epochs", "dose", "tv")
        },
    )


if __name__ == "__main__":
    main()
