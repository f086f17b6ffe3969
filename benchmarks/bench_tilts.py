"""Seconds per epoch of an end-to-end tilt series, what turning the volume costs of it, and its memory.

    python benchmarks/bench_tilts.py [--views 26] [--side 296] [--shots 1024] [--batch 64] [--json FILE]

By default 26 views of a volume of 296³ on a GPU and a tenth of it, 5 views of 96³, on a CPU: patterns of 66², 3 modes,
8 slices, batches of 64 shots of one view, gradients by potential, probe and positions. Three steps take turns: the
volume with each kernel, with and without small further angles of each view (Euler), and `plain` multislice of as many slices that do not turn. `turn` is the volume turned and its
gradient turned back, alone. The floor is that of `common.Rates`. Goals: turning costs at most 10 % of a step, a step at most 1.3 of a plain one.
Large volumes on a CPU take half the time in huge pages: `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` on Linux.
"""

import statistics

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import OF_GRADIENT, Rates, Table, arguments, opening, ratio, save, seconds

from jaxptycho import (
    Dataset,
    FreeScan,
    Grid,
    Model,
    PerShot,
    PerView,
    PixelProbe,
    PotentialSlices,
    Volume,
    amplitude,
    batches,
    init_state,
    make_batch,
    make_step,
    misfit,
    per_part,
    select,
)
from jaxptycho.inverse.step import copy_for_donation, named
from jaxptycho.physics import volumes

WINDOW, MODES, SLICES, VOXEL = 66, 3, 8, 0.4
LEAN = 0.01  # rad, further angles of a view


def model_of(args, specimen) -> Model:
    """A series of `args.views` views, positions anywhere on the volume."""
    grid, rng = Grid((WINDOW, WINDOW), VOXEL, voltage_kv=80.0), np.random.default_rng(0)
    y, x = (np.indices(grid.shape) - WINDOW // 2) * VOXEL
    waves = np.exp(-(y**2 + x**2) / 8) * np.stack([np.ones_like(y), y, x]) * 3
    reach = (args.side - WINDOW - 2) / 2 * VOXEL
    places = rng.uniform(-reach, reach, (args.views, args.shots, 2))
    probe = PixelProbe(jnp.asarray(waves, jnp.complex64))
    return Model(
        probe, specimen, FreeScan(PerView(PerShot(jnp.asarray(places, jnp.float32)))), grid
    )


def specimens(args) -> dict:
    """The volume with each kernel, and slices that do not turn."""
    n, rng = args.side, np.random.default_rng(1)
    volts = jnp.asarray(10 * rng.random((n, n, n), np.float32))
    tilts = PerView(jnp.linspace(-1.0, 1.0, args.views))
    leant = PerView(jnp.asarray(rng.normal(0, LEAN, (args.views, 2)), jnp.float32))
    turning = {
        f"{kernel}{also}": Volume(volts, VOXEL, tilts, SLICES, angles=angles, kernel=kernel)
        for also, angles in (("", None), (", Euler", leant))
        for kernel in ("linear", "cubic")
    }
    corner = jnp.full(2, -(n // 2) * VOXEL)
    thick = n / SLICES * VOXEL
    return turning | {
        "plain": PotentialSlices(volts[:SLICES], None, jnp.asarray(thick, jnp.float32), corner)
    }


def gradient_of(model, batch):
    """The loss and its gradient by potential, probe and positions; the bytes that they need; what is turned alone."""
    moved = ("specimen.potential", "probe", "scan")
    params, rest = eqx.partition(model, eqx.is_inexact_array)
    labels = named(params, moved)
    mine = jax.tree.map(lambda label, array: array if label != "frozen" else None, labels, params)
    rest = eqx.combine(
        rest,
        jax.tree.map(lambda label, array: array if label == "frozen" else None, labels, params),
    )
    loss = misfit(amplitude)
    derived = jax.value_and_grad(lambda mine, batch: loss(eqx.combine(mine, rest), batch))
    step = jax.jit(derived).lower(mine, batch).compile()
    return lambda: jax.block_until_ready(
        step(mine, batch)
    ), step.memory_analysis().temp_size_in_bytes


def turn_of(volume: Volume, view: int):
    """The volume turned for a view, and the gradient of its slices turned back."""
    one = select(volume, PerView, view)

    @jax.jit
    def there_and_back(potential):
        slices, back = jax.vjp(
            lambda v: volumes.beam_slices(
                v, one.voxel, one.frame, one.tilt, one.angles, kernel=one.kernel
            ),
            potential,
        )
        return back(slices)[0]

    return lambda: jax.block_until_ready(there_and_back(one.potential))


def floor(args, specimen, rates: Rates) -> float:
    """Seconds that no step can do without: counts of two bytes, potential and probe."""
    numbers = specimen.potential.size + 2 * MODES * WINDOW**2
    planes = args.batch * MODES * SLICES
    return rates.floor((WINDOW, WINDOW), planes, 2 * args.batch * WINDOW**2 + OF_GRADIENT * numbers)


def epoch_of(model, all_batches):
    """Seconds of an epoch with Adam on potential, probe and positions, after one that compiles."""
    optimiser = per_part({("specimen", "probe", "scan"): optax.adam(1e-3)})
    step = make_step(misfit(amplitude), optimiser)
    model, state = copy_for_donation(model), init_state(optimiser, model)
    model, state, _ = step(model, state, all_batches[0])

    def epoch(model, state):
        for batch in all_batches:
            model, state, _ = step(model, state, batch)
        jax.block_until_ready(model.specimen.potential)

    return seconds(lambda: epoch(model, state))


def series(args, model) -> Dataset:
    """Counts of no particular specimen."""
    shape = (args.views, args.shots, WINDOW, WINDOW)
    counts = np.random.default_rng(2).poisson(1.0, shape).astype(np.uint16)
    return Dataset(counts, np.asarray(model.scan.positions.values.values), model.grid)


def main():
    gpu = jax.default_backend() == "gpu"
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--views", type=int, default=26 if gpu else 5)
    parser.add_argument("--side", type=int, default=296 if gpu else 96, help="voxels")
    parser.add_argument(
        "--shots", type=int, default=1024 if gpu else 128, help="patterns of a view"
    )
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    if args.quick:
        args.views, args.side, args.shots, args.batch, args.rounds = 2, 72, 8, 8, 1
    opening()
    contenders, steps, turns, rows = specimens(args), {}, {}, []
    data = series(args, model_of(args, contenders["plain"]))
    batch = jax.tree.map(jnp.asarray, make_batch(data, 0, range(args.batch)))
    for name, specimen in contenders.items():
        steps[name] = gradient_of(model_of(args, specimen), batch)
        if isinstance(specimen, Volume):
            turns[name] = turn_of(specimen, 0)
    times = {name: [] for name in [*steps, *(f"turn {name}" for name in turns)]}
    for n in range(args.rounds + 1):
        for name in times:
            one = turns[name[5:]] if name.startswith("turn ") else steps[name][0]
            took = statistics.median(seconds(one) for _ in range(3))
            if n:  # the first is for warming up
                times[name].append(took)
    rates = Rates.measured((WINDOW, WINDOW), devices=jax.device_count(), quick=args.quick)
    print(rates)
    table = Table(
        kernel="<13s", step_ms=">9.1f", turn_ms=">9.2f", share=">7.3f", to_plain=">9.3f", MB=">8.0f", epoch_s=">9.2f",
        floor_ms=">8.1f", to_floor=">8.1f"
    )  # fmt: skip
    all_batches = [jax.tree.map(jnp.asarray, b) for b in batches(data, args.batch)]
    for name, specimen in contenders.items():
        row = {
            "kernel": name,
            "step_ms": 1e3 * statistics.median(times[name]),
            "MB": steps[name][1] / 1e6,
        }
        least = floor(args, specimen, rates)
        row |= {"floor_ms": 1e3 * least, "to_floor": row["step_ms"] / (1e3 * least)}
        if name in turns:
            turn = times[f"turn {name}"]
            row |= {"turn_ms": 1e3 * statistics.median(turn), "share": ratio(turn, times[name])}
            row |= {"to_plain": ratio(times[name], times["plain"])}
            row |= {"epoch_s": epoch_of(model_of(args, specimen), all_batches)}
        rows.append(row)
        table.line(**row)
    sizes = {name: getattr(args, name) for name in ("views", "side", "shots", "batch", "rounds")}
    save(args, rows, device=str(jax.devices()[0]), **sizes)


if __name__ == "__main__":
    main()
