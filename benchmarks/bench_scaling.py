"""Strong and weak scaling over devices, and what larger machines would have to send.

    python benchmarks/bench_scaling.py [--devices N] [--link GB_PER_S] [--json FILE]

Strong: one specimen and batch, on ever more devices. Weak: both grow with the devices. Shots are spread over all
devices (shots), the specimen lies in slabs (slabs), or in two slabs for groups of shots (both). MB are of one device:
model and optimiser as they lie there, and the whole step by the compiler's plan. The share of communication is what a
step takes beyond the same work of one device alone; on a CPU, whose devices share its cores, it means little.

The projection compiles the step of a turning volume for 8, 64 and 1024 devices from shapes alone (on a CPU's virtual
devices, in processes of their own) and reads off its collectives; `link` turns their bytes into time. Rows of vacuum are
added where slabs would be unequal, and the beam's way is rounded up to equal slices: 607³ lies in 608 rows of 607 × 607
voxels, and its 20 slices are 31 voxels thick each (620).
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import Table, arguments, ask, opening, save

SHAPE = jax.ShapeDtypeStruct
MACHINES = {
    607: ((1, 8), (8, 8), (128, 8)),
    2000: ((1, 8), (4, 16), (64, 16)),
}  # voxels: groups of shots, slabs


def problem(rows, shots, window, slices, modes=2):
    """A stack of `rows` pixels, scanned evenly along y, and a batch of all its `shots`."""
    import jaxptycho as jp

    grid, columns = jp.Grid((window, window), 0.2, 300.0), 2 * window
    rng = np.random.default_rng(0)
    low, high = 0.1 * window + 0.2, 0.2 * (rows - window // 2) - 0.2
    places = np.stack([np.linspace(low, high, shots), rng.uniform(low, 0.3 * window, shots)], 1)
    wave = np.exp(-(np.hypot(*np.mgrid[:window, :window] - window // 2) ** 2) / (0.02 * window**2))
    probe = np.stack(
        [wave * 100 / np.sqrt((wave**2).sum()) / (m + 1) for m in range(modes)]
    ).astype(np.complex64)
    phase = jnp.asarray(rng.normal(size=(slices, rows, columns)) * 0.05, jnp.float32)
    specimen = jp.SliceStack(phase, None, jnp.float32(10.0), jnp.zeros(2))
    scan = jp.FreeScan(jp.PerShot(jnp.asarray(places, jnp.float32)))
    counts = rng.poisson(1e4 / window**2, (shots, window, window)).astype(np.uint16)
    batch = jp.Batch(
        np.int32(0), np.arange(shots, dtype=np.int32), counts, np.ones(shots, np.float32)
    )
    return jp.Model(jp.PixelProbe(jnp.asarray(probe)), specimen, scan, grid), batch


def prepared(rows, shots, devices, slabs, **sizes):
    """Model, optimiser's state and batch as they lie on a mesh, and what belongs to them."""
    import jaxptycho as jp
    from jaxptycho.distributed.sharding import even, place_on_mesh
    from jaxptycho.distributed.slabs.batching import arrange
    from jaxptycho.distributed.slabs.layout import homes
    from jaxptycho.inverse.step import copy_for_donation

    mesh, (model, batch) = jp.mesh(devices, slabs), problem(rows, shots, **sizes)
    batch = arrange(batch, homes(model, 0, slabs), mesh) if slabs > 1 else even(batch, mesh)
    optimiser = jp.per_part(specimen=optax.adam(1e-3), probe=optax.adam(1e-3))
    state = jp.init_state(optimiser, model)
    step = jp.make_step(jp.distribute(jp.misfit(jp.amplitude), mesh), optimiser)
    return (
        step,
        place_on_mesh(copy_for_donation(model), mesh),
        place_on_mesh(state, mesh, model),
        batch,
        mesh,
    )


def measure(work, seconds) -> float:
    """Median time of a step [s]."""
    step, model, state, batch, _ = work
    model, state, _ = jax.block_until_ready(step(model, state, batch))
    times = []
    while sum(times) < seconds or not times:
        start = time.perf_counter()
        model, state, _ = jax.block_until_ready(step(model, state, batch))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def holdings(work) -> dict:
    """MB of model and state that lie on one device, of a step, and of what it receives."""
    import jaxptycho as jp
    from jaxptycho.distributed.memory_plan import plan

    _, model, state, batch, mesh = work
    expected = plan(jp.misfit(jp.amplitude), model, state, batch, mesh)
    leaves = [leaf for leaf in jax.tree.leaves((model, state)) if eqx.is_array(leaf)]
    held, received = (
        sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves),
        sum(expected.sent.values()),
    )
    return {"held_mb": held / 1e6, "step_mb": expected.total / 1e6, "received_mb": received / 1e6}


def scaling(args, sizes, rows, shots, seconds):
    """Rows of both tables, printed as they come."""
    cores = len(os.sched_getaffinity(0)) if jax.default_backend() == "cpu" else math.inf
    table, found = Table(
        scaling="<8s", how="<6s", groups="6d", slabs="5d", patterns_s="10.1f", efficiency="10.2f", held_mb="9.2f",
        step_mb="9.2f", received_mb="11.3f", communication="13.2f",
    ), []  # fmt: skip
    halo = 2 * (sizes["window"] // 2 + max(4, sizes["window"] // 8))
    for name in ("strong", "weak"):
        first = None
        for n in [2**k for k in range(args.devices.bit_length()) if 2**k <= args.devices]:
            larger = n if name == "weak" else 1
            ways = (
                {"shots": 1, "slabs": n, "both": 2}
                if n > 2
                else {"shots": 1, "slabs": n}
                if n > 1
                else {"one": 1}
            )
            for how, slabs in ways.items():
                of = (rows * larger, shots * larger)
                work = prepared(*of, n, slabs, **sizes)
                row = {
                    "scaling": name,
                    "how": how,
                    "groups": n // slabs,
                    "slabs": slabs,
                } | holdings(work)
                row["step_s"] = measure(work, seconds)  # donates what it is given
                row["patterns_s"] = of[1] / row["step_s"]
                first = first or row["patterns_s"]
                row["efficiency"] = row["patterns_s"] / first / min(n, cores)
                if n > 1:
                    own = prepared(of[0] // slabs + halo * (slabs > 1), of[1] // n, 1, 1, **sizes)
                    alone = measure(own, seconds) * max(1, n / cores)
                    row["communication"] = max(0.0, 1 - alone / row["step_s"])
                found.append(row)
                table.line(**row)
    return found


def projected(voxels, groups, slabs, shots=8, largest=128, modes=4, views=60) -> dict:
    """What the compiled step of a volume of `voxels`³ takes and receives on groups × slabs devices."""
    import jaxptycho as jp
    from jaxptycho.distributed.memory_plan import plan

    window = min(largest, voxels // 2)
    devices, slices, rows = groups * slabs, 20, voxels + -voxels % slabs
    depth = voxels + -voxels % slices
    turned = SHAPE((voxels, rows, voxels), jnp.float32)
    specimen = eqx.filter_eval_shape(
        lambda p: jp.Volume(p, 0.2, jp.PerView(jnp.zeros(views)), slices, depth=depth), turned
    )
    scan = jp.FreeScan(jp.PerView(jp.PerShot(SHAPE((views, 1000, 2), jnp.float32))))
    probe = jp.PixelProbe(SHAPE((modes, window, window), jnp.complex64))
    model = jp.Model(probe, specimen, scan, jp.Grid((window, window), 0.2, 300.0))
    size = shots * devices
    batch = (
        SHAPE((size,), jnp.int32),
        SHAPE((size, window, window), jnp.uint8),
        SHAPE((size,), jnp.float32),
    )
    adam = eqx.filter_eval_shape(
        jp.per_part(specimen=optax.adam(1e-3)).init, eqx.filter(model, _inexact)
    )
    own = plan(
        jp.misfit(jp.poisson), model, adam, jp.Batch(np.int32(0), *batch), jp.mesh(devices, slabs)
    )
    return {
        "voxels": voxels,
        "rows": rows,
        "devices": devices,
        "groups": groups,
        "slabs": slabs,
        "patterns": size,
        "gb": own.total / 1e9,
        "halo_percent": 100 * own.halo_share,
        "halo_mb": own.sent.get("collective-permute", 0) / 1e6,
        "summed_mb": own.sent.get("all-reduce", 0) / 1e6,
    }


def _inexact(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def projection(args):
    """Rows of the projection, printed as they come."""
    table, found = Table(
        voxels="6d", rows="5d", devices="7d", groups="6d", slabs="5d", patterns="8d", gb="8.2f", halo_percent="12.1f",
        halo_mb="8.1f", summed_mb="9.1f", link_ms="8.2f",
    ), []  # fmt: skip
    cases = {64: ((2, 4),)} if args.quick else MACHINES
    for voxels, machines in cases.items():
        for groups, slabs in machines:
            env = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(groups * slabs)}
            row = ask(
                sys.executable,
                Path(__file__).resolve(),
                "--project",
                voxels,
                groups,
                slabs,
                env=env,
            )
            # a halo comes once, a sum in rings goes around twice
            moved = row["halo_mb"] + 2 * (groups - 1) / groups * row["summed_mb"]
            found.append(row | {"link_ms": moved / args.link})
            table.line(**found[-1])
    return found


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument(
        "--devices", type=int, help="most devices; default all, on a CPU one for each core"
    )
    parser.add_argument(
        "--link", type=float, default=25.0, help="GB/s between devices, for the projection"
    )
    parser.add_argument(
        "--project",
        type=int,
        nargs=3,
        metavar=("VOXELS", "GROUPS", "SLABS"),
        help="one row, as JSON",
    )
    args = parser.parse_args()
    if args.project:
        print(json.dumps(projected(*args.project)))
        return
    from jaxptycho import one_device_per_core

    cores = one_device_per_core()
    if args.devices and jax.config.jax_platforms in (None, "cpu") and args.devices > cores:
        jax.config.update("jax_num_cpu_devices", args.devices)
    args.devices = args.devices or jax.device_count()
    opening()
    sizes = {"window": 16, "slices": 2} if args.quick else {"window": 64, "slices": 6}
    rows, shots, seconds = (128, 16, 0.0) if args.quick else (2048, 256, 3.0)
    scaled = scaling(args, sizes, rows, shots, seconds)
    print()
    save(args, scaled, projection=projection(args), backend=jax.default_backend())


if __name__ == "__main__":
    main()
