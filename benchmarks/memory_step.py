"""Peak memory and time of loss and gradient of one batch, for one contender: a JSON line.

The peak is that of the process beyond what it holds when everything is compiled and in place (Linux),
or of the device's allocator on a GPU.
"""

import gc
import json
import statistics
from pathlib import Path

from common import seconds
from problem import EPS, PIXEL, THICKNESS, WAVELENGTH, case_arguments, case_of, make_problem

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MICRO = 4  # shots at a time in PyTorch: a search for the fastest would fill the process before it is measured
OURS = ("jaxptycho", "sqrt", "reversible", "leanest")


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process [bytes]."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def growth(step) -> int:
    """Bytes by which the process grows, at most, while `step` runs for the first time."""
    gc.collect()
    CLEAR.write_text("5")  # the high-water mark falls to what is held now
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def make_ours(case, contender):
    """A compiled step, the bytes that the compiler plans for all devices, and what it is."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxptycho as jp
    from jaxptycho.physics import checkpointed

    if jax.config.jax_num_cpu_devices < 1:
        cores = jp.one_device_per_core()
        while case.shots % cores:  # each device works off its share
            cores -= 1
        jax.config.update("jax_num_cpu_devices", cores)
    ways = {
        "jaxptycho": {},
        "sqrt": {"multislice": checkpointed.multislice_sqrt},
        "reversible": {"multislice": checkpointed.multislice_reversible},
        "leanest": {"micro": 1, "multislice": checkpointed.multislice_sqrt},
    }
    problem, weight = make_problem(case), np.ones(case.shots, np.float32)
    model = jp.Model(
        probe=jp.PixelProbe(jnp.asarray(problem.probe)),
        specimen=jp.SliceStack(jnp.asarray(problem.phase), None, THICKNESS, (0.0, 0.0)),
        scan=jp.FreeScan(jp.PerShot(jnp.asarray(problem.positions, jnp.float32))),
        grid=jp.Grid((case.pixels, case.pixels), PIXEL, wavelength=WAVELENGTH),
    )
    batch = jp.Batch(np.int32(0), np.arange(case.shots, dtype=np.int32), problem.counts, weight)
    noise = lambda predicted, counts: jp.amplitude(predicted, counts, EPS)  # noqa: E731
    loss = jp.distribute(jp.misfit(noise, **ways[contender]), jp.mesh())

    def of(sought):
        return loss(eqx.tree_at(lambda m: (m.specimen.phase, m.probe.waves), model, sought), batch)

    sought = model.specimen.phase, model.probe.waves
    compiled = jax.jit(jax.value_and_grad(of)).lower(sought).compile()
    figure = compiled.memory_analysis()
    planned = jax.device_count() * (figure.temp_size_in_bytes + figure.output_size_in_bytes)

    def peak(step):
        if jax.default_backend() == "cpu":
            return growth(step)
        before = jax.devices()[0].memory_stats()["bytes_in_use"]
        step()
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] - before

    about = f"jax {jax.__version__}, {jax.device_count()} × {jax.devices()[0].device_kind}"
    return lambda: float(compiled(sought)[0]), planned, peak, about


def make_theirs(case, contender):
    """A step of PyTorch, no plan, and what it is."""
    import torch
    from torch_step import make_gradient

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("highest")
    step = make_gradient(case, device, MICRO if contender == "torch, micro" else None)

    def peak(step):
        if device.type == "cpu":
            return growth(step)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before

    return step, None, peak, f"torch {torch.__version__}"


def main():
    parser = case_arguments(__doc__)
    parser.add_argument("contender", choices=(*OURS, "torch", "torch, micro"))
    parser.add_argument("repetitions", type=int)
    args = parser.parse_args()
    make = make_ours if args.contender in OURS else make_theirs
    step, planned, peak, about = make(case_of(args), args.contender)
    found = {"planned_bytes": planned, "peak_bytes": peak(step), "loss": step(), "version": about}
    print(
        json.dumps(
            found | {"seconds": statistics.median(seconds(step) for _ in range(args.repetitions))}
        )
    )


if __name__ == "__main__":
    main()
