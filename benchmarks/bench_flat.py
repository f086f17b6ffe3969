"""How much sharper a few small tilts make the depth of a flat specimen, at the same dose.

    python benchmarks/bench_flat.py [--tilt 4] [--spacing 20] [--steps 300] [--dose 1e6] [--json FILE]

Two twisted layers, WSe2 over MoS2, `--spacing` [Å] apart. Patterns by the simulator, which turns the atoms; the model
leans the beam (`start.flat.inclined`) over ten slices that never turn, and starts from vacuum; probe, positions and
tilts are known. Profiles along z through the W and the Mo columns are fitted by Gaussians: their width, and how far
apart the layers are found.
"""

import time

import jax.numpy as jnp
import numpy as np
import optax
from common import Table, arguments, opening, save

from jaxptycho import (
    Dataset,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    PotentialSlices,
    amplitude,
    batches,
    minimise,
    misfit,
    per_part,
)
from jaxptycho.analysis.depth import depth_profiles, fit_depth_peaks
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.simulate.experiment import Experiment, Sampling
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.phantoms import twisted_bilayer
from jaxptycho.simulate.scan import raster
from jaxptycho.start.tilt_coupled import tilt_coupled

GRID, LENS, SLICES = Grid((32, 32), 0.3, voltage_kv=80.0), Microscope(0.025, 20.0), 10


def reconstructed(args, tilts, points: int):
    """The model from views at `tilts` [rad] that share the dose, and the experiment."""
    step = 8.0 / (points - 1)
    experiment = Experiment(
        atoms=twisted_bilayer(24.0, spacing=args.spacing),
        grid=GRID,
        microscope=LENS,
        scan=raster((points, points), step),
        dose=args.dose * step**2 / len(tilts),
        sampling=Sampling(0.15, 1.0),
        tilts=tuple(tilts),
    )
    rng = np.random.default_rng(0)
    counts = [
        np.fft.fftshift(rng.poisson(experiment.expected(v)), axes=(1, 2)) for v in range(len(tilts))
    ]
    places = np.stack([view.positions for view in experiment.views])
    data = Dataset(np.stack(counts).astype(np.uint16), places, GRID)
    thick = 2 * args.spacing / SLICES
    side = 2 * int(np.ceil(np.abs(places).max() / GRID.pixel[0]) + 24)
    corner = jnp.full(2, -(side // 2) * GRID.pixel[0], jnp.float32)
    empty = PotentialSlices(
        jnp.zeros((SLICES, side, side), jnp.float32), None, jnp.asarray(thick, jnp.float32), corner
    )
    above = (
        experiment.box.origin[0] + args.spacing
    )  # from our entrance face to the simulator's, where the lens is
    probe = LENS.probe(experiment.dose, float(above))
    scan = FreeScan(PerView(PerShot(jnp.asarray(places, jnp.float32))))
    model = tilt_coupled(Model(probe, empty, scan, GRID), tilts)
    optimiser = per_part(specimen=optax.adam(optax.cosine_decay_schedule(args.rate, args.steps)))
    shots = batches(data, size=points**2, epochs=args.steps // len(tilts))
    return experiment, *minimise(
        misfit(amplitude), model, shots, optimiser, build("positivity", model)
    )


def judged(experiment: Experiment, model: Model) -> dict:
    """Widths and distance of the layers [Å], from the columns inside the scan."""
    specimen, atoms, found = model.specimen, experiment.atoms, {}
    thick = float(specimen.thickness)
    for name, number in (("W", 74), ("Mo", 42)):
        columns = atoms.positions[atoms.numbers == number][:, 1::-1]
        inside = columns[np.abs(columns).max(1) < 3.5]
        values = np.asarray(specimen.potential, float)
        profiles = depth_profiles(values, inside, GRID.pixel, 0.6, np.asarray(specimen.origin))
        found[name] = fit_depth_peaks(profiles.mean(0)[None], thick)
    apart = float(found["Mo"].position[0] - found["W"].position[0])
    z = atoms.positions[:, 2]
    true = z[atoms.numbers == 42].mean() - z[atoms.numbers == 74].mean()
    return {
        "W_fwhm": float(found["W"].fwhm[0]),
        "Mo_fwhm": float(found["Mo"].fwhm[0]),
        "apart": apart,
        "true": float(true),
    }


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--tilt", type=float, default=4.0, help="[°]")
    parser.add_argument("--spacing", type=float, default=20.0, help="of the layers [Å]")
    parser.add_argument("--steps", type=int, default=300, help="each with all shots of one view")
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument(
        "--dose", type=float, default=1e6, help="electrons/Å² of all views together"
    )
    args = parser.parse_args()
    points = 11
    if args.quick:
        args.steps, points = 90, 8
    opening()
    table = Table(
        tilts=">14s",
        loss=">9.2f",
        W_fwhm=">8.2f",
        Mo_fwhm=">8.2f",
        apart=">7.2f",
        true=">6.2f",
        s=">6.1f",
    )
    rows = []
    for tilts in ((0.0,), (-args.tilt, 0.0, args.tilt)):
        start = time.perf_counter()
        experiment, model, history = reconstructed(args, np.deg2rad(tilts), points)
        losses = float(jnp.mean(history[-len(tilts) :]))
        named = {
            "tilts": ", ".join(f"{t:g}" for t in tilts),
            "loss": losses,
            "s": time.perf_counter() - start,
        }
        rows.append(named | judged(experiment, model))
        table.line(**rows[-1])
    save(
        args,
        rows,
        **{name: getattr(args, name) for name in ("tilt", "spacing", "steps", "rate", "dose")},
    )


if __name__ == "__main__":
    main()
