"""Positions that are wrong by several pixels: by gradients, a search of known error, the default job.

    python benchmarks/bench_positions.py --rms 3 6 --seeds 10 11 12
    python benchmarks/bench_positions.py --star --rms 10 --seeds 10
    python benchmarks/bench_positions.py --dose 1e6 --ways default --seeds 30 31

Simulated scans of blobs (see `bench_geometry`; 12 × 12 positions, a probe of 20 pixels), or the measured Siemens star (516 positions, a probe of 60 pixels), with Gaussian errors
of `rms` pixels along y and x, clipped at 30. Columns: seed, way, root mean square and median of the
distances [pixels] to the true positions after an affine map, shots farther than a pixel, CPU
seconds. Seeds 0…9 served for tuning.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import optax
from bench_geometry import GRID, scan
from common import save

import jaxptycho as jp
from jaxptycho.io.native import write_native
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.model import probe_positions
from jaxptycho.start import position_search
from jaxptycho.start.position_search import find_positions

EPOCHS = 120  # of gradients alone


def blobs(seed, side, dose):
    """A simulated scan, its true positions [Å], and a function that makes a first model."""
    _, counts, true = scan(dose, seed, side)
    about = {"semiangle_mrad": 25.0, "defocus_angstrom": 120.0}
    data = jp.Dataset(counts, true, GRID, about=about, frame=(0.0, 0.0))

    def first(data):
        return jp.first_model(data, defocus=120.0, margin=15.0, specimen="phase")

    return data, first


def siemens_star():
    """The measured scan, as `blobs`; its recorded positions are taken for the true ones."""

    def first(data):
        return jp.first_model(data, margin=60.0)

    return jp.read(Path(os.environ["JAXPTYCHO_DATA"]) / "siemens_star_xray.h5"), first


def distances(found, true, pixel):
    """Distances [pixels] after the best affine map."""
    columns = np.c_[found, np.ones(len(found))]
    mapped = columns @ np.linalg.lstsq(columns, true, rcond=None)[0]
    return np.hypot(*(mapped - true).T) / pixel


def by_gradients(data, model, epochs):
    """Positions after epochs of Adam on all parts."""
    rate = optax.cosine_decay_schedule(0.2, epochs * -(-data.n_shots[0] // 16), 0.2)
    parts = {"specimen": 2e-2, "probe": 1e-2, "scan": rate}
    solver = jp.per_part({part: optax.adam(rate) for part, rate in parts.items()})
    drawn = jp.batches(data, 16, epochs, seed=0)
    return probe_positions(
        jp.minimise(jp.losses.misfit(jp.losses.amplitude), model, drawn, solver)[0]
    )


def by_default(data):
    """Positions of the result of the default job."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scan.h5"
        write_native(file, data)
        job = make_job({"data": {"file": str(file)}, "step": [{"kind": "refine"}]})
        return probe_positions(start(job, Path(folder) / "run").model)


def compared(data, first, rms, seed, ways, epochs):
    """A row for every way: its name, distances before and after, CPU seconds."""
    true = data.positions[0].copy()
    pixel = max(data.grid.pixel)
    wrong = (
        true + np.clip(np.random.default_rng([seed, 7]).normal(0, rms, true.shape), -30, 30) * pixel
    )
    data.positions = [wrong]
    for way in ways:
        began = time.process_time()
        if way == "search":
            found = find_positions(data, first, rms * pixel, seed=seed)
        elif way == "default":
            found = by_default(data)
        else:
            found = by_gradients(data, first(data), epochs)
        seconds = time.process_time() - began
        yield way, distances(wrong, true, pixel), distances(found, true, pixel), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rms", type=float, nargs="+", default=[3.0], help="pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10])
    parser.add_argument("--dose", type=float, default=1e5, help="quanta of a pattern of blobs")
    parser.add_argument("--star", action="store_true", help="the measured Siemens star")
    parser.add_argument("--ways", nargs="+", default=["gradients", "search"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    given = parser.parse_args()
    if given.quick:
        position_search.MAX_ROUNDS = position_search.NEAR_ROUNDS = 1
    rows = []
    side = 6 if given.quick else 12
    for rms in given.rms:
        for seed in given.seeds:
            data, first = siemens_star() if given.star else blobs(seed, side, given.dose)
            epochs = 3 if given.quick else EPOCHS
            for way, *both, seconds in compared(data, first, rms, seed, given.ways, epochs):
                shown = [
                    f"{np.sqrt(np.mean(d**2)):5.2f} {np.median(d):5.2f} {(d > 1).sum():4d}"
                    for d in both
                ]
                print(rms, seed, f"{way:9s}", " → ".join(shown), f"{seconds:.0f} s", flush=True)
                before, after = (float(np.sqrt(np.mean(d**2))) for d in both)
                rows.append(
                    {"rms": rms, "seed": seed, "way": way, "before": before, "after": after}
                )
    save(given, rows)


if __name__ == "__main__":
    main()
