"""Nanoseconds for a wave and a gap between slices, exit wave and gradient: multislice through FFTs and in one kernel.

    python benchmarks/bench_fused.py [--case SHOTS,PIXELS,SLICES,MODES]… [--rounds 5] [--json FILE]

Each way of `physics.waves`, `physics.checkpointed` and `kernels.pallas_multislice` brings the same waves of a batch
through the same slices
and back, by wave and slices, in turns; `error` is the largest difference of the gradient from that of plain multislice,
relative to its largest value. The floor is that of the FFTs, 31 passes over a wave at the rate of a copy of 1 GiB. Off a
GPU the fused kernels are interpreted, which says nothing of their speed.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from common import Table, arguments, opening, ratio, save, seconds
from problem import Case

from jaxptycho.kernels import pallas_multislice
from jaxptycho.physics import checkpointed, waves
from jaxptycho.physics.grids import Grid


def exiting(entering_last):
    """The multislice of a function to the wave that enters the last slice."""

    @functools.wraps(entering_last)
    def multislice(wave, slices, kernel):
        return waves.Exit(entering_last(wave, slices, kernel), slices[-1])

    return multislice


WAYS = (
    waves.multislice,
    checkpointed.multislice_sqrt,
    checkpointed.multislice_reversible,
    exiting(pallas_multislice.multislice_fused),
    exiting(pallas_multislice.multislice_fused_dft),
)
CASES = (  # the largest last: its kernels take a minute to compile
    Case(64, 64, 10, 4),
    Case(64, 32, 10, 4),
    Case(16, 64, 10, 1),
    Case(64, 64, 6, 12),
    Case(64, 128, 6, 12),
)
QUICK = (Case(2, 16, 3, 1),)
PASSES, REPEATED = 31, 5


def gradients(case: Case):
    """For each way, a function of nothing that computes the gradient; or why it does not run."""
    shape, rng = (case.pixels, case.pixels), np.random.default_rng(0)
    kernel = waves.fresnel(Grid(shape, 0.2, voltage_kv=80.0), 20.0)
    phase = jnp.asarray(rng.normal(0, 0.1, (case.shots, case.slices, *shape)), jnp.float32)
    normal = rng.normal(size=(2, case.shots, case.modes, *shape)).astype(np.float32)
    entering, slices = jax.lax.complex(*map(jnp.asarray, normal)), jnp.exp(1j * phase)

    def of(way):
        @jax.jit
        def gradient(entering, slices):
            through = lambda *a: jax.vmap(lambda *b: way(*b).wave, (0, 0, None))(*a, kernel)  # noqa: E731
            wave, pull = jax.vjp(through, entering, slices)
            return pull(jnp.conj(wave))

        return lambda: jax.block_until_ready(gradient(entering, slices))

    return {way.__name__: of(way) for way in WAYS}


def copy_rate() -> float:
    """Bytes read and written per second by a copy of an array, 1 GiB on a GPU."""
    size = 2**28 if jax.default_backend() == "gpu" else 2**22
    array, add = jnp.zeros(size, jnp.float32), jax.jit(lambda a: a + 1)
    jax.block_until_ready(add(array))
    return 8 * size / min(seconds(lambda: jax.block_until_ready(add(array))) for _ in range(9))


def compare(case: Case, rounds: int, rate: float) -> list[dict]:
    """A row for every way that runs, and one that says why for every other."""
    steps, rows, failed, exact = gradients(case), [], [], None
    times: dict[str, list[float]] = {}
    errors = {}
    for name, step in steps.items():
        try:
            found = [np.asarray(a) for a in step()]
        except Exception as error:  # a kernel that does not fit a device is a finding
            failed.append(
                case._asdict() | {"way": name, "failed": f"{type(error).__name__}: {error}"[:500]}
            )
            continue
        exact = exact or found
        errors[name] = max(
            float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, exact, strict=True)
        )
        times[name] = []
    for _ in range(rounds):
        for name, taken in times.items():
            taken.append(statistics.median(seconds(steps[name]) for _ in range(REPEATED)))
    crossings = case.shots * case.modes * (case.slices - 1)
    floor = 1e9 * PASSES * 8 * case.pixels**2 / rate
    for name, taken in times.items():
        ns = 1e9 * statistics.median(taken) / crossings
        rows.append(
            case._asdict()
            | {"way": name, "ns": ns, "ratio": ratio(taken, times["multislice"]), "floor_ns": floor}
            | {"of_floor": ns / floor, "error": errors[name]}
        )
    return rows + failed


def main():
    parser = arguments(__doc__, rounds=5)
    parser.add_argument(
        "--case", action="append", type=lambda text: Case(*map(int, text.split(",")))
    )
    args = parser.parse_args()
    opening()
    rate, device = copy_rate(), jax.devices()[0].device_kind
    print(f"jax {jax.__version__}, {device}, copies at {rate / 1e12:.3g} TB/s")
    table, rows = Table(
        shots="5d", pixels="6d", slices="6d", modes="5d", way="<22s", ns="9.1f", ratio="6.2f", floor_ns="9.1f",
        of_floor="8.2f", error="9.1e",
    ), []  # fmt: skip
    for case in args.case or (QUICK if args.quick else CASES):
        for row in compare(case, 1 if args.quick else args.rounds, rate):
            rows.append(row)
            table.line(**row)
            if "failed" in row:
                print(f"  {row['failed']}", flush=True)
        save(args, rows, jax=jax.__version__, device=device, copy_bytes_per_s=rate)


if __name__ == "__main__":
    main()
