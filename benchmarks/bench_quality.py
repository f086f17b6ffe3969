"""Passes and CPU seconds to a given quality: the default job beside every solver of ptychography, without a rate.

    python benchmarks/bench_quality.py [--data NAME …] [--solver NAME …] [--passes 20] [--seed 0] [--json FILE]

Data from the folder JAXPTYCHO_DATA. Every solver is what a job with `optimiser = NAME` and nothing else would run: specimen
and probe by full steps, positions by Adam, rates that fall once the held-out loss no longer does. A pass uses every pattern
once. Goals are R = Σ|√M − √I| / Σ√I over all patterns of the Siemens star, and for the bilayer, where noise is most of R, the
held-out deviance of Poisson per pixel. Seconds are CPU seconds of the passes alone: the first, which compiles, counts as the
median of the others, the trials of the range test by their share of a pass.
"""

import os
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from common import Table, arguments, opening, save
from published_data import true_model

import jaxptycho as jp
from jaxptycho.inverse.automatic import batch_size, late
from jaxptycho.inverse.losses import from_noise_or_loss
from jaxptycho.inverse.solvers.registry import ENGINES
from jaxptycho.jobs.optimisation import Optimisation, build_optimiser
from jaxptycho.runs import loop as loops
from jaxptycho.runs.batch_source import BatchSource
from jaxptycho.runs.loop import Loop, Refinement
from jaxptycho.runs.progress import ProgressListener
from jaxptycho.runs.range_test import TRIAL
from jaxptycho.runs.state import Diverged, Progress

AT_ONCE = 8  # patterns predicted at a time


class Case(NamedTuple):
    """A measurement, its first model, and the qualities that count."""

    file: str
    first: dict
    measure: str
    goals: tuple[float, ...]  # of this measure
    intensities: bool = False


CASES = {
    "siemens": Case("siemens_star_xray.h5", {"modes": 3}, "R", (0.16, 0.15, 0.14, 0.135), True),
    "bilayer": Case(
        "wse2_mos2_bilayer_80kV_1e5.h5",
        {"probe": "optics", "slices": 4, "thickness": 16.0},
        "deviance",
        (0.215, 0.212, 0.21, 0.209),
    ),
}


def measurement(name: str, quick: bool) -> tuple[jp.Dataset, jp.Model, str, tuple[float, ...]]:
    """Dataset, first model, measure and goals of a case."""
    if quick:
        truth = true_model((5, 5), jp.Grid((32, 32), 0.3, voltage_kv=80.0))
        counts = np.random.default_rng(0).poisson(np.asarray(jp.predict(truth, np.arange(25))))
        data = jp.Dataset(
            np.fft.fftshift(counts, (1, 2)).astype(np.uint16),
            np.asarray(truth.scan.positions.values),
            truth.grid,
            about={"semiangle_mrad": 24.9, "defocus_angstrom": 100.0},
        )
        return data, jp.first_model(data), "R", (0.5,)
    case = CASES[name]
    data = jp.read(Path(os.environ["JAXPTYCHO_DATA"]) / case.file)
    model = jp.first_model(data, **case.first)
    if case.intensities:
        gain = jp.PerShot(jnp.ones(data.n_shots[0]))
        model = eqx.tree_at(lambda m: m.detector, model, jp.Gain(gain, model.detector))
    return data, model, case.measure, case.goals


@eqx.filter_jit
def sums(model: jp.Model, shots, counts):
    """Sums of the moduli's errors, of the moduli, and of the Poisson deviance."""
    predicted = jp.predict(model, shots)
    moduli = jnp.sqrt(counts)
    error = jnp.abs(jnp.sqrt(jnp.maximum(predicted, 0)) - moduli)
    return jnp.sum(error), jnp.sum(moduli), jnp.sum(jp.poisson(predicted, counts))


def quality(model: jp.Model, data: jp.Dataset, held) -> tuple[float, float]:
    """R over all patterns, and the held-out deviance per pixel."""

    def total(shots):
        parts = [shots[n : n + AT_ONCE] for n in range(0, len(shots), AT_ONCE)]
        counts = (jnp.asarray(data.patterns(0, part), jnp.float32) for part in parts)
        return np.sum([sums(model, p, c) for p, c in zip(parts, counts, strict=True)], 0)

    error, moduli, _ = total(np.arange(data.n_shots[0]))
    return float(error / moduli), float(total(held)[2] / (len(held) * np.prod(data.grid.shape)))


def course(solver: str, data, first: jp.Model, passes: int, seed: int) -> list[dict]:
    """A row a pass."""
    section = Optimisation.model_validate({"optimiser": solver, "epochs": passes})
    source = BatchSource.of(data, jp.mesh(), 0.02 if data.n_shots[0] > 200 else 0.2, seed)
    batch = batch_size(source.shots_per_epoch)
    rates = section.rates_of(first)
    plan = Refinement(
        loss=from_noise_or_loss(jp.amplitude),
        optimiser=build_optimiser(section, first, source.steps_per_epoch(batch)),
        epochs=passes,
        batch=batch,
        parts=tuple(rates),
        rates=section.known_rates(rates),
        automatic=True,
        late=late(tuple(rates)),
    )
    rows = []
    trials = []
    find = loops.find_rate

    def counted(*args):
        found = find(*args)
        trials.extend(found[1])
        began[0] = time.process_time()
        return found

    began = [time.process_time()]

    def on_epoch(progress: Progress) -> None:
        took = time.process_time() - began[0]
        error, deviance = quality(progress.model, data, source.held[0])
        rows.append({"cpu_s": took, "R": error, "deviance": deviance})
        began[0] = time.process_time()

    loops.find_rate = counted
    start = jp.inverse.step.copy_for_donation(first)
    try:
        Loop(plan, source, ProgressListener(), on_epoch=on_epoch).run(Progress(start))
    except Diverged as error:
        print(error)
    finally:
        loops.find_rate = find
    per_pass = statistics.median(row["cpu_s"] for row in rows[1:] or rows)
    extra = TRIAL * len(trials)
    return [
        row | {"passes": extra + n, "seconds": per_pass * (extra + n)}
        for n, row in enumerate(rows, 1)
    ]


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--data", action="append", choices=CASES)
    parser.add_argument("--solver", action="append", choices=("adam", *ENGINES))
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    opening()
    names = args.data or (["quick"] if args.quick else list(CASES))
    passes = 3 if args.quick else args.passes
    solvers = args.solver or (["adam", "awf"] if args.quick else ["adam", *ENGINES])
    table = Table(
        data=">8s",
        solver=">10s",
        cpu_s_per_pass=">8.2f",
        goals=">60s",
        best_R=">7.4f",
        deviance=">8.4f",
    )
    found = []
    for name in names:
        data, first, measure, goals = measurement(name, args.quick)
        for solver in solvers:
            rows = course(solver, data, first, passes, args.seed)
            reached = []
            for goal in goals:
                hit = next((row for row in rows if row[measure] <= goal), None)
                reached.append(
                    f"{goal:g}: –"
                    if hit is None
                    else f"{goal:g}: {hit['passes']:.4g} / {hit['seconds']:.3g} s"
                )
            best = min(rows, key=lambda row: row["deviance"])
            line = {
                "data": name,
                "solver": solver,
                "cpu_s_per_pass": rows[-1]["seconds"] / rows[-1]["passes"],
                "best_R": best["R"],
                "deviance": best["deviance"],
            }
            table.line(goals=", ".join(reached), **line)
            found.append(line | {"course": rows})
    save(args, found, passes=passes, seed=args.seed)


if __name__ == "__main__":
    main()
