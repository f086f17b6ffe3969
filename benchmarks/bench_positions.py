"""Positions that are wrong by several pixels, by gradients alone and with a search for shots.

    python benchmarks/bench_positions.py --rms 3 --seeds 10 11 12

Simulated scans of blobs (see `bench_geometry`; 12 × 12 positions, 10⁵ quanta), Gaussian errors of
`rms` pixels along y and x, clipped at 30. Both ways take as many epochs. Columns: seed, way, root
mean square and median of the distances [pixels] to the true positions after an affine map, shots
farther than a pixel. Seeds 0…9 served for tuning.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax
from bench_geometry import GRID, scan
from common import save

import jaxptycho as jp
from jaxptycho.inverse.position_search import ROUNDS, locate_shots
from jaxptycho.model import probe_positions


class Course(NamedTuple):
    """Lines of a scan, and epochs before the search, between two rounds of it, and after it."""

    side: int
    first: int
    each: int
    rounds: int
    last: int


FULL = Course(12, 30, 5, ROUNDS, 30)
QUICK = Course(6, 3, 1, 1, 3)


def distances(found, true):
    """Distances [pixels] after the best affine map."""
    columns = np.c_[found, np.ones(len(found))]
    mapped = columns @ np.linalg.lstsq(columns, true, rcond=None)[0]
    return np.hypot(*(mapped - true).T) / GRID.pixel[0]


def refiner(data, epochs):
    """`refine(model, shots)` by epochs of Adam."""
    number = iter(range(10**6))

    def refine(model, shots, epochs=epochs):
        steps = epochs * -(-len(shots) // 16)
        rate = optax.cosine_decay_schedule(0.2, steps, 0.2)
        parts = {"specimen": 2e-2, "probe": 1e-2, "scan": rate}
        solver = jp.per_part({part: optax.adam(rate) for part, rate in parts.items()})
        loss = jp.losses.misfit(jp.losses.amplitude)
        drawn = jp.batches(data, 16, epochs, seed=next(number), shots=shots)
        return jp.minimise(loss, model, drawn, solver)[0]

    return refine


def located(rms, seed, search, reach, course):
    """Distances before and after."""
    _, counts, true = scan(1e5, seed, course.side)
    rng = np.random.default_rng([seed, 7])
    wrong = true + np.clip(rng.normal(0, rms, true.shape), -30, 30) * GRID.pixel[0]
    data = jp.Dataset(counts, wrong, GRID, about={"semiangle_mrad": 25.0}, frame=(0.0, 0.0))
    model = jp.first_model(data, defocus=120.0, margin=12.0)
    refine = refiner(data, course.each)
    every = np.arange(len(true))
    for _ in range(3):
        model = refine(model, every, course.first // 3)
    if search:
        model = locate_shots(model, data, refine, reach, course.rounds)
    else:
        for _ in range(course.rounds):
            model = refine(model, every, 2 * course.each)
    for _ in range(3):
        model = refine(model, every, course.last // 3)
    return distances(wrong, true), distances(probe_positions(model), true)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rms", type=float, default=3.0)
    parser.add_argument("--reach", type=float, default=5.0, help="Å")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    given = parser.parse_args()
    course = QUICK if given.quick else FULL
    rows = []
    for seed in given.seeds:
        for way in ("gradients", "search"):
            both = located(given.rms, seed, way == "search", given.reach, course)
            shown = [
                f"{np.sqrt(np.mean(d**2)):5.2f} {np.median(d):5.2f} {(d > 1).sum():4d}"
                for d in both
            ]
            print(seed, f"{way:9s}", " → ".join(shown), flush=True)
            before, after = (float(np.sqrt(np.mean(d**2))) for d in both)
            rows.append({"seed": seed, "way": way, "before": before, "after": after})
    save(given, rows)


if __name__ == "__main__":
    main()
