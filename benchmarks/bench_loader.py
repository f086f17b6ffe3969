"""Seconds to load an epoch over seconds to compute it, for compressed patterns that stay on disk.

    python benchmarks/bench_loader.py [--patterns 1024] [--pixels 128] [--batch 64] [--json FILE]

A native file (gzip) is read as if it did not fit into memory, at random, through `batches` and `prefetch`.
In every round an epoch is loaded without computing, computed from batches that are at hand, and both together,
where the time is taken that the loop waits for its next batch. The goal is loading ≤ 1.0 × computing. A first
epoch, which compiles, is apart. `waited` includes the first batch of an epoch, which nothing can hide.
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax
from common import Table, arguments, opening, ratio, save, seconds

import jaxptycho as jp
import jaxptycho.data.dataset
from jaxptycho.io.native import write_native

USUAL = ((1, 1), (1, 4), (6, 4), (10, 4))  # slices, modes


def measurement(args) -> jp.Dataset:
    """Poisson noise about a bright disc with a faint tail, on a square raster."""
    rng, n = np.random.default_rng(0), args.pixels
    k = np.arange(n) - n // 2
    radius = np.hypot(k[:, None], k) / n
    expected = 10 / (1 + np.exp((radius - 0.15) * 80)) + 0.3 * np.exp(-3 * radius)
    counts = rng.poisson(expected, (args.patterns, n, n)).astype(np.uint16)
    side = int(np.ceil(np.sqrt(args.patterns)))
    places = np.stack(np.divmod(np.arange(args.patterns), side), -1) * 0.4
    return jp.Dataset(
        counts,
        places,
        jp.Grid((n, n), 0.2, 200.0),
        about={"semiangle_mrad": 20.0, "defocus_angstrom": 100.0},
    )


def compare(data: jp.Dataset, args, slices: int, modes: int, rounds: int) -> dict:
    """Medians over rounds of an epoch loaded, computed, and both."""
    devices = jp.mesh()
    model = jp.first_model(data, modes=modes, slices=slices, thickness=10.0 * slices)
    optimiser = jp.per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3))
    step = jp.make_step(jp.distribute(jp.misfit(jp.amplitude), devices), optimiser)
    state = jp.init_state(optimiser, model)
    at_hand = list(jp.batches(data, args.batch))

    def load():
        for _ in jp.batches(data, args.batch):
            pass

    def compute(batches):
        nonlocal model, state
        waited, batches = 0.0, iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - start
            if batch is None:
                jax.block_until_ready((model, state))
                return waited
            model, state, info = step(model, state, batch)
            jax.block_until_ready(
                info
            )  # so that waiting for the device is not taken for waiting for a batch

    waits = []
    first = seconds(lambda: compute(at_hand))
    found = {"loading": [], "computing": [], "both": []}
    for _ in range(rounds):
        found["loading"].append(seconds(load))
        found["computing"].append(seconds(lambda: compute(at_hand)))
        found["both"].append(
            seconds(lambda: waits.append(compute(jp.prefetch(jp.batches(data, args.batch)))))
        )
    return {
        "slices": slices,
        "modes": modes,
        "first_s": first,
        **{f"{name}_s": statistics.median(times) for name, times in found.items()},
        "waited_s": statistics.median(waits),
        "ratio": ratio(found["loading"], found["computing"]),
        "goal": 1.0,
    }


def main():
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--patterns", type=int, default=1024)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    if args.quick:
        args.patterns, args.pixels, args.batch = 16, 32, 8
    jp.one_device_per_core()
    opening()
    print(
        f"jaxptycho {jp.__version__}, jax {jax.__version__}, {jax.device_count()} × {jax.devices()[0].device_kind}"
    )
    jaxptycho.data.dataset.IN_MEMORY_BYTES = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.h5"
        write_native(path, measurement(args))
        size = args.patterns * args.pixels**2 * 2
        print(
            f"{args.patterns} patterns of {args.pixels}², {size / 2**20:.1f} MiB, {path.stat().st_size / 2**20:.1f} on disk, "
            f"batches of {args.batch}"
        )
        table = Table(
            slices="6d", modes="5d", first_s="8.2f", loading_s="9.3f", computing_s="11.3f", both_s="8.3f",
            waited_s="8.3f", ratio="6.2f", goal="5.1f",
        )  # fmt: skip
        rows, data = [], jp.read(path)
        for slices, modes in ((1, 1),) if args.quick else USUAL:
            rows.append(compare(data, args, slices, modes, 1 if args.quick else args.rounds))
            table.line(**rows[-1])
    save(args, rows, jax=jax.__version__, device=jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
