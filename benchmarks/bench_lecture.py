"""Seconds for the example of the lecture: its loop over positions in PyTorch, and jaxptycho, in turns.

    python benchmarks/bench_lecture.py [--torch PYTHON] [--rounds 5] [--json FILE]

A phase object of 64², 256 windows of 64² that wrap around its edges, 20 epochs of two batches, Adam
(notebook 01). "jax" is one program for all steps, as it would be written by hand: the floor of all that JAX traces. Each run is a process of its own. "Reconstruct" is from the amplitudes in memory to the
phase, with all tracing and compiling; "again" is the same once more in the same process, where a step that
has been compiled is at hand; "process" is the former with starting Python and loading the package. Compiled
programs are kept in a folder that is empty at first: the first run is apart.
PYTHON is the interpreter of an environment that holds PyTorch, by default the one that runs this.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import HERE, Table, arguments, ask, opening, ratio, save
from scipy.ndimage import gaussian_filter
from skimage import data, transform

PIXELS, GOAL = 64, 0.1


def measure(path: Path, step: int) -> None:
    """Writes what the lecture simulates: truth, probe, corners of the windows and amplitudes."""
    n = PIXELS
    image = gaussian_filter(transform.resize(data.astronaut(), (n, n)), sigma=1).mean(axis=2)
    truth = (image / image.max() * 0.4).astype(np.float32)
    y, x = np.mgrid[:n, :n]
    line = np.linspace(-1, 1, n)
    aperture = np.hypot(y - n // 2, x - n // 2) <= n // 4
    probe = np.fft.fftshift(
        np.fft.ifft2(np.fft.fftshift(aperture * np.exp(40j * np.add.outer(line**2, line**2))))
    )
    probe = (probe / np.linalg.norm(probe)).astype(np.complex64)
    axis = np.arange(-16, n - 16, step)
    corners = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    rows, columns = ((corners[:, [i]] + np.arange(n)) % n for i in (0, 1))
    windows = np.exp(1j * truth)[rows[:, :, None], columns[:, None, :]]
    amplitudes = np.abs(np.fft.fft2(probe * windows)).astype(np.float32)
    np.savez(path, truth=truth, probe=probe, corners=corners, amplitudes=amplitudes)


def timed(python, *arguments) -> dict:
    """What a run says, with the seconds of its process up to the first result."""
    start = time.perf_counter()
    found = ask(python, HERE / "lecture.py", *arguments)
    return found | {"process_s": time.perf_counter() - start - found["later_s"]}


def main():
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON")
    args = parser.parse_args()
    opening()
    with tempfile.TemporaryDirectory() as folder:
        file, cache = Path(folder) / "lecture.npz", Path(folder) / "compiled"
        measure(file, step=16 if args.quick else 4)
        more = ["--epochs", 2] if args.quick else []
        runs = {
            "jaxptycho": [sys.executable, "jaxptycho", file, "--cache", cache],
            "jax": [sys.executable, "jax", file, "--cache", cache],
            "torch": [args.torch, "torch", file],
        }
        first = {name: timed(*run, *more) for name, run in runs.items()}
        found = {name: [] for name in runs}
        for _ in range(0 if args.quick else args.rounds):
            for name, run in runs.items():
                found[name].append(timed(*run, *more))
    found = {name: own or [first[name]] for name, own in found.items()}
    table, rows = (
        Table(
            package="<12s",
            what="<12s",
            first_s="8.2f",
            seconds="8.2f",
            ratio="6.2f",
            goal="5.2f",
            psnr="6.1f",
        ),
        [],
    )
    for what, goal in (("reconstruct", GOAL), ("again", None), ("process", None)):
        times = {name: [run[f"{what}_s"] for run in own] for name, own in found.items()}
        for name, own in times.items():
            row = {
                "package": name,
                "what": what,
                "first_s": first[name][f"{what}_s"],
                "rounds": own,
            }
            row |= {"seconds": statistics.median(own)} | {
                key: found[name][0][key] for key in ("psnr", "version")
            }
            row |= {"ratio": None if name == "torch" else ratio(own, times["torch"])}
            row |= {"goal": goal if name == "jaxptycho" else None}
            rows.append(row)
            table.line(**row)
    print("; ".join(row["version"] for row in rows[:3]))
    save(args, rows)


if __name__ == "__main__":
    main()
