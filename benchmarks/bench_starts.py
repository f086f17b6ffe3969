"""Wrong starts: what the default makes of them, and what the verdict says.

    python benchmarks/bench_starts.py [--seed 0] [--json FILE]

A twisted bilayer at 80 kV by the package's own simulator; semiangle and defocus of the file off by 10 and 30 %, a probe
that is flat over its window, and rates by hand, of which that of one part is far too small or too large.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from common import Table, arguments, opening, save

import jaxptycho as jp
from jaxptycho.jobs.simulation import truth
from jaxptycho.reports.evaluate import phase_agreement
from jaxptycho.simulate.experiment import Experiment
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.phantoms.crystals import twisted_bilayer
from jaxptycho.simulate.sampling import Sampling
from jaxptycho.simulate.scan import raster

STEP, DOSE = 0.7, 1e5  # Å, e/Å²
LENS = {"semiangle_mrad": 25.0, "defocus_angstrom": 100.0}
WRONG = {"semiangle_mrad": (1.1, 0.9), "defocus_angstrom": (1.3, 0.7)}
BY_HAND = {"specimen": 1e-2, "probe": 1e-2, "scan": 2e-2}
FACTORS = 1e-4, 0.1, 1.0  # rates of one part
EPOCHS = 25  # by hand


def flat(model: jp.Model) -> jp.Model:
    """The model with a probe of one value and of the same power."""
    waves = model.probe.waves
    value = jnp.sqrt(jnp.mean(jnp.abs(waves) ** 2))
    return eqx.tree_at(lambda m: m.probe.waves, model, jnp.full_like(waves, value))


def starts(dataset):
    """Name, measurement, first model and options of every case."""
    right = dataset(LENS)
    yield "right", right, jp.first_model(right), {}
    for name, factors in WRONG.items():
        for factor in factors:
            data = dataset(LENS | {name: factor * LENS[name]})
            yield f"{name} x {factor}", data, jp.first_model(data), {}
    yield "flat probe", right, flat(jp.first_model(right)), {}
    yield "mean pattern", right, jp.first_model(right, probe="mean_pattern"), {}
    for part in BY_HAND:
        for rate in FACTORS:
            rates = BY_HAND | {part: rate}
            optimiser = jp.per_part({name: optax.adam(value) for name, value in rates.items()})
            options = {"optimiser": optimiser, "epochs": EPOCHS}
            yield f"{part} {rate:g}", right, jp.first_model(right), options


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    opening()
    points = 10 if args.quick else 16
    case = Experiment(
        atoms=twisted_bilayer(30.0, 8.0, vacancies=0),
        grid=jp.Grid((48, 48), 0.25, 80.0),
        microscope=Microscope(25e-3, 100.0, {"C12": 15.0, "phi12": 0.3}),
        scan=raster((points, points), STEP),
        dose=STEP**2,
        sampling=Sampling(0.1, 1.0),
        seed=args.seed,
    )
    mean = DOSE * np.fft.fftshift(case.expected(0), (1, 2))
    counts = np.random.default_rng([args.seed, 9]).poisson(mean).astype(np.uint16)
    facts = truth(case, 4.0)
    table = Table(
        start="<24s", passes=">6d", r=">7.4f", slope=">7.3f", held_out=">8.3f", share=">6.2f"
    )
    rows = []
    for name, data, first, options in starts(
        lambda lens: jp.Dataset(counts, case.scan, case.grid, about=lens)
    ):
        options = {"epochs": 2} if args.quick else options
        result = jp.reconstruct(data, first, progress=False, seed=args.seed, **options)
        found = phase_agreement(result.model, facts)
        line = {
            "start": name,
            "passes": len(result.history),
            "r": float(found.correlation),
            "slope": float(found.slope),
            "held_out": result.fit["held_out_chi2"],
            "share": float(result.verdict.evidence.share),
        }
        table.line(**line)
        rows.append(line)
        if args.quick:
            break
    save(args, rows)


if __name__ == "__main__":
    main()
