"""Numbers of the geometry refined beside specimen and probe: errors before and after, predicted errors, cost.

    python benchmarks/bench_geometry.py --probe free --dose 1e6 --seeds 10 11 12

Simulated scans of blobs by an aberrated probe (80 kV, 48 × 48 pixels, 8 × 8 positions), refined
from wrong numbers after some epochs. Columns: seed, number, error before, error after, predicted
error, and z, their ratio. Seeds 0…9 served for tuning.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from common import save

import jaxptycho as jp
from jaxptycho.inverse.geometry import refine_geometry
from jaxptycho.inverse.geometry_numbers import numbers_of, values_of

GRID = jp.Grid((48, 48), 0.3, 80.0)
STEP = 2.1  # Å
RATE = 2e-2  # of Adam before the first step
WRONG = {
    "scan.scale": 0.01,
    "scan.rotation": 0.01,
    "probe.defocus": 6.0,
    "probe.semiangle": 5e-4,
}
PROBES = {
    "free": ["scan.scale", "scan.rotation"],
    "aberrated": list(WRONG),
}


def scan(dose, seed, side):
    """A model of blobs, and its noisy counts."""
    rng = np.random.default_rng(seed)
    steps = (np.arange(side) - (side - 1) / 2) * STEP
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    size = int(np.ptp(places) / GRID.pixel[0]) + 60
    y, x = np.mgrid[:size, :size]
    spots = rng.uniform(0, size, (90, 2))
    phase = sum(0.4 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in spots)
    origin = jnp.full(2, -size / 2 * GRID.pixel[0])
    specimen = jp.SliceStack(jnp.asarray(phase[None]), None, jnp.zeros(()), origin)
    probe = jp.AberratedProbe(0.025, {"defocus": 120.0}, dose=dose)
    model = jp.Model(probe, specimen, jp.FreeScan(jp.PerShot(jnp.asarray(places))), GRID)
    counts = rng.poisson(np.asarray(jp.predict(model, np.arange(len(places)))))
    return model, np.fft.fftshift(counts, (1, 2)).astype(np.uint32), places


def refined(kind, dose, seed, side, epochs, steps):
    """Errors before and after, predicted errors, and CPU seconds of an epoch and of a step."""
    names = PROBES[kind]
    true, counts, places = scan(dose, seed, side)
    numbers = numbers_of(true, names)
    data = jp.Dataset(counts, places, GRID, about={"semiangle_mrad": 25.0}, frame=(0.0, 0.0))
    signs = np.random.default_rng([seed, 1]).choice([-1, 1], len(names))
    by = jnp.asarray(signs * [WRONG[name] for name in names])
    model = numbers.moved(true, by, jnp.zeros(2))
    first = jp.first_model(data, defocus=120.0, margin=6.0)
    model = replace(first, scan=model.scan, probe=first.probe if kind == "free" else model.probe)
    goal = values_of(true, data, numbers)
    before = values_of(model, data, numbers) - goal
    parts = {"specimen": optax.adam(RATE)}
    beside = ("specimen", "probe.dose")
    if kind == "free":
        parts["probe"] = optax.adam(RATE / 2)
        beside = ("specimen", "probe")
    began = time.process_time()
    batches = jp.batches(data, 16, epochs, seed=seed)
    loss = jp.losses.misfit(jp.losses.amplitude)
    model, _ = jp.minimise(loss, model, batches, jp.per_part(parts))
    of_epochs = (time.process_time() - began) / epochs
    of_step = 0.0
    for number in range(steps):
        last = number == steps - 1  # the errors of its numbers take a solution for each
        model, correction = refine_geometry(model, data, names, eliminated=beside, errors=last)
        now = time.process_time()
        of_step = of_step if last else now - began
        began = now
    return (
        names,
        before,
        values_of(model, data, numbers) - goal,
        correction.errors,
        of_epochs,
        of_step,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", choices=PROBES, default="free")
    parser.add_argument("--dose", type=float, default=1e6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    given = parser.parse_args()
    if given.quick:
        given.side = 5
        given.epochs = 2
        given.steps = 2
    rows = []
    for seed in given.seeds:
        names, before, after, errors, epoch, step = refined(
            given.probe, given.dose, seed, given.side, given.epochs, given.steps
        )
        for name, *values in zip(names, before, after, errors, after / errors, strict=True):
            print(f"{seed} {name:16s}", *(f"{value: .3g}" for value in values), flush=True)
            columns = zip(("before", "after", "error", "z"), map(float, values), strict=True)
            rows.append({"seed": seed, "name": name} | dict(columns))
        print(f"{seed} CPU seconds of an epoch {epoch:.2f}, of a step {step:.2f}", flush=True)
    save(given, rows)


if __name__ == "__main__":
    main()
