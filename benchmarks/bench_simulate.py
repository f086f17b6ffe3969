"""Seconds for the same simulated 4D-STEM scan in jaxptycho and in abTEM, in turns in one process.

    python benchmarks/bench_simulate.py [--side 8] [--cells 6] [--layers 51] [--rounds 3] [--json FILE]

A slab of SrTiO₃ along [001], frozen phonons, one slice for each atomic layer (or for half of one, `--slices 2`):
the same window, pixels, slices, positions, aperture and band limit, single precision on both sides. abTEM computes as
its documentation recommends, lazily with FFTW and dask's threads. A row holds medians over rounds; what compiles,
plans transforms or fills tables is a first run, apart. Both are checked against each other where atoms are still and
lie on pixels, so that the work is known to be the same.
"""

import argparse
import json
import os
import platform
import statistics
import time
from datetime import date
from importlib.metadata import version

import abtem
import jax
import numpy as np
from ase import Atoms
from ase.build import make_supercell

from jaxptycho import Grid
from jaxptycho.distributed.sharding import mesh, one_device_per_core, share
from jaxptycho.simulate.experiment import Experiment, Sampling, expected_patterns
from jaxptycho.simulate.microscope import Microscope
from jaxptycho.simulate.phantoms.arrange import displaced
from jaxptycho.simulate.stacks import content, transmissions

CELL, VOLTAGE_KV, SEMIANGLE, RMS = 3.905, 300.0, 20e-3, 0.08  # Å, kV, rad, Å
PIXELS, DETECTOR = 40, 16  # of a cell's side


def crystal(sides: int, layers: int) -> Atoms:
    """`sides`² × `layers` cells [Å], the first atoms a quarter of a cell below the entrance face."""
    places = [(0, 0, 0.25), (0.5, 0.5, 0.75), (0.5, 0.5, 0.25), (0.5, 0, 0.75), (0, 0.5, 0.75)]
    cell = Atoms("SrTiO3", scaled_positions=places, cell=[CELL] * 3, pbc=True)
    return make_supercell(cell, np.diag([sides, sides, layers]))


def scan(args) -> np.ndarray:
    """Positions [Å] (y, x) over one cell in the middle of the window."""
    steps = np.arange(args.side) * CELL / args.side + CELL * (args.cells // 2)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)


def ours(args, projection: str, rms: float, configurations: int):
    """Functions that compute the potentials [V·Å] and the patterns; the crystal reaches as far as any window."""
    wide = args.cells + 6 - args.cells % 2
    atoms = crystal(wide, args.layers)
    atoms.positions[:, :2] -= CELL * (wide - args.cells) / 2
    n, extent = DETECTOR * args.cells, CELL * args.cells
    experiment = Experiment(
        atoms=Atoms(numbers=atoms.numbers, positions=atoms.positions),
        grid=Grid((n, n), extent / n, VOLTAGE_KV),
        microscope=Microscope(SEMIANGLE),
        scan=scan(args),
        dose=1.0,
        sampling=Sampling(CELL / PIXELS + 1e-9, CELL / (2 * args.slices)),
        vibration=rms,
        configurations=configurations,
        projection=projection,
    )
    box, rng = experiment.box, np.random.default_rng(0)

    def potentials():
        for _ in range(configurations):
            still = displaced(experiment.atoms, rms, rng)
            found = content(
                still.numbers,
                still.positions[:, ::-1],
                np.zeros(len(still)),
                box,
                projection=projection,
            )
            transmissions(found, box.grid).block_until_ready()

    compute = share(expected_patterns, mesh())  # as on the command line
    return potentials, lambda: experiment.expected(0, compute=compute)


def theirs(args, projection: str, rms: float, configurations: int):
    """The same in abTEM, where one period of the crystal is the window."""
    atoms, gpts, extent = crystal(args.cells, args.layers), PIXELS * args.cells, CELL * args.cells
    frozen = (
        abtem.FrozenPhonons(atoms, num_configs=configurations, sigmas=rms, seed=0) if rms else atoms
    )
    potential = abtem.Potential(
        frozen, gpts=gpts, slice_thickness=CELL / (2 * args.slices), projection=projection
    )
    probe = abtem.Probe(
        energy=1e3 * VOLTAGE_KV, semiangle_cutoff=1e3 * SEMIANGLE, gpts=gpts, extent=extent
    )
    places = abtem.CustomScan(scan(args)[:, ::-1])
    detector = abtem.PixelatedDetector(max_angle=None, reciprocal_space=True)

    def scanned():
        found = probe.scan(potential, scan=places, detectors=detector).compute(progress_bar=False)
        array = np.asarray(found.array)
        return array.mean(0) if array.ndim == 4 else array

    return lambda: potential.build().compute(progress_bar=False), scanned


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def difference(args) -> float:
    """Relative amplitude error of our patterns of still atoms, over the detector."""
    mine, other = (side(args, "infinite", 0.0, 1)[1]() for side in (ours, theirs))
    n = DETECTOR * args.cells
    kept = np.arange(n) - n // 2
    middle = other.shape[-1] // 2 + kept
    mine = np.fft.fftshift(mine, axes=(1, 2))
    other = other.transpose(0, 2, 1)[:, middle][:, :, middle]
    return float(np.linalg.norm(np.sqrt(mine) - np.sqrt(other)) / np.linalg.norm(np.sqrt(other)))


def compare(args, projection: str) -> dict:
    """Medians of both sides, in turns."""
    sides = {"ours": ours, "abtem": theirs}
    jobs = {name: side(args, projection, RMS, args.configurations) for name, side in sides.items()}
    result = {"projection": projection, **vars(args), "load": os.getloadavg()[0]}
    for name, (potentials, scanned) in jobs.items():
        result[f"{name}_first_s"] = seconds(scanned)
        seconds(potentials)
    times = {name: [] for name in jobs}
    for _ in range(args.rounds):
        for name, (potentials, scanned) in jobs.items():
            times[name].append((seconds(potentials), seconds(scanned)))
    for name, rows in times.items():
        potential, total = (statistics.median(column) for column in zip(*rows, strict=True))
        result |= {
            f"{name}_potential_s": potential,
            f"{name}_multislice_s": total - potential,
            f"{name}_s": total,
        }
    return result | {"ratio": result["ours_s"] / result["abtem_s"]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=8, help="positions along each direction")
    parser.add_argument("--cells", type=int, default=6, help="of the window's side")
    parser.add_argument("--layers", type=int, default=51, help="cells along the beam")
    parser.add_argument("--slices", type=int, default=1, help="for each atomic layer")
    parser.add_argument("--configurations", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("infinite", "finite"))
    parser.add_argument("--json")
    args = parser.parse_args()
    one_device_per_core()
    names = f"jaxptycho on jax {jax.__version__}, abTEM {version('abtem')}"
    print(
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {names}"
    )
    print(f"relative difference of the amplitudes, still atoms: {difference(args):.1e}")
    print(f"{'seconds':10} {'first':>7} {'potential':>10} {'multislice':>11} {'all':>8}")
    results = []
    for projection in (args.only,) if args.only else ("infinite", "finite"):
        r = compare(args, projection)
        results.append(r)
        for name in ("ours", "abtem"):
            print(
                f"{name:10} {r[f'{name}_first_s']:7.2f} {r[f'{name}_potential_s']:10.2f} "
                f"{r[f'{name}_multislice_s']:11.2f} {r[f'{name}_s']:8.2f}"
            )
        print(f"{projection} projection: ratio {r['ratio']:.3f}, load {r['load']:.1f}", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
