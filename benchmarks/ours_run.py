"""Seconds per epoch of jaxptycho on a dataset: amplitude loss, Adam on specimen, probe and positions."""

import argparse
import json
import math
import resource
import time

import equinox as eqx
import jax
import numpy as np
import optax
from common import OF_ADAM

import jaxptycho as jp
from jaxptycho.distributed.sharding import replicate


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--modes", type=int, default=1)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--devices",
        type=int,
        default=None,
        help="CPU devices; by default one for each core that gets equal shares",
    )
    parser.add_argument("--fixed-positions", action="store_true")
    parser.add_argument("--focus-to-sample", type=float, help="of a near-field hologram [Å]")
    return parser.parse_args()


def work_of(data, args, parameters) -> dict:
    """What a pass cannot do without, for `common.Rates.floor`; a near field is one more pair of transforms each way."""
    patterns = sum(data.n_shots)
    planes = patterns * args.modes * (args.slices + (0.5 if args.focus_to_sample else 0))
    counts = patterns * data.patterns(0, np.arange(1)).nbytes
    numbers = sum(
        leaf.view(np.float32).size for leaf in map(np.asarray, jax.tree.leaves(parameters))
    )
    moved = counts + math.ceil(patterns / args.batch) * OF_ADAM * numbers
    return {"shape": data.grid.shape, "planes": planes, "moved": moved}


def measure(args):
    jax.config.update(
        "jax_num_cpu_devices", args.devices or math.gcd(args.batch, jp.one_device_per_core())
    )
    near = (
        {}
        if args.focus_to_sample is None
        else {"near_field": True, "focus_to_sample_angstrom": args.focus_to_sample}
    )
    data = jp.read(args.dataset, **near)
    thickness = data.about.get("thickness_angstrom")
    distance = data.about.get("effective_distance_angstrom")
    model = jp.first_model(
        data, modes=args.modes, slices=args.slices, thickness=thickness, near_field=distance
    )
    rates = {"specimen": 5e-3, "probe": 5e-3} | ({} if args.fixed_positions else {"scan": 1e-2})
    optimiser = jp.per_part({part: optax.adam(rate) for part, rate in rates.items()})
    mesh = jp.mesh()
    step = jp.make_step(jp.distribute(jp.misfit(jp.amplitude), mesh), optimiser)
    work = work_of(
        data, args, eqx.filter([getattr(model, part) for part in rates], eqx.is_inexact_array)
    )
    model, state = replicate(
        (model, jp.init_state(optimiser, model)), mesh
    )  # else the second step compiles again
    seconds, losses = [], []
    for epoch in range(args.epochs):
        start, values = time.perf_counter(), []
        for batch in jp.prefetch(jp.stacked(jp.batches(data, args.batch, first_epoch=epoch))):
            model, state, info = step(model, state, batch)
            values.append(info["loss"])
        losses.append(
            float(np.mean(np.concatenate([np.atleast_1d(v) for v in jax.device_get(values)])))
        )
        seconds.append(time.perf_counter() - start)
    return {
        "package": "jaxptycho",
        "version": f"{jp.__version__} (jax {jax.__version__}, {jax.device_count()} {jax.default_backend()})",
        "dataset": args.dataset.rsplit("/", 1)[-1],
        "modes": args.modes,
        "slices": args.slices,
        "batch": args.batch,
        "epochs": args.epochs,
        "seconds_per_epoch_median": float(np.median(seconds[1:])),
        "seconds_first_epoch": seconds[0],
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "peak_bytes": 1024
        * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,  # of the host, on Linux
    } | work


if __name__ == "__main__":
    print(json.dumps(measure(arguments())))
