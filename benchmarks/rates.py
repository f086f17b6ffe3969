"""What this device does at best, all its cores together: a JSON line for `common.Rates`.

Bytes a second, read and written by a sum in place that no cache holds, and seconds for the Fourier transform of one
plane of each shape, planes in cache (on GPUs as many as fill it), back and forth; the best of some runs.
"""

import argparse
import json
from functools import partial

import jax
import jax.numpy as jnp
from common import seconds
from jax.sharding import PartitionSpec as P

import jaxptycho as jp
from jaxptycho.kernels import fft2, ifft2

BYTES = {"cpu": (2**27, 2**18), "gpu": (2**30, 2**26)}  # of each device: summed, transformed


def best(work, often: int, shape, dtype, tries: int) -> float:
    """Seconds for one `work(array)` on every device at once, from runs of `often`."""
    mesh = jp.mesh()
    spread = partial(jax.shard_map, mesh=mesh, in_specs=P("shots"), out_specs=P("shots"))
    run = jax.jit(spread(lambda x: jax.lax.fori_loop(0, often, lambda _, x: work(x), x)))
    start = jax.device_put(
        jnp.ones((mesh.size * shape[0], *shape[1:]), dtype), jax.NamedSharding(mesh, P("shots"))
    )
    jax.block_until_ready(run(start))
    return min(seconds(lambda: jax.block_until_ready(run(start))) for _ in range(tries)) / often


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="+", metavar="YxX", help="of planes")
    parser.add_argument("--devices", type=int, help="of a CPU; by default one for each core")
    parser.add_argument("--tries", type=int, default=7)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", args.devices or jp.one_device_per_core())
    summed, transformed = BYTES.get(jax.default_backend(), BYTES["gpu"])
    took, ffts = best(lambda x: x + 1, 4, (summed // 4,), jnp.float32, args.tries), {}
    for shape in args.shapes:
        sides = tuple(map(int, shape.split("x")))
        planes = max(1, transformed // (8 * sides[0] * sides[1]))
        both = best(lambda x: ifft2(fft2(x)), 50, (planes, *sides), jnp.complex64, args.tries)
        ffts[shape] = both / (2 * planes * jax.device_count())
    print(
        json.dumps(
            {
                "copy": 2 * summed * jax.device_count() / took,
                "fft": ffts,
                "devices": jax.device_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
