"""Loss and gradient of a batch in jaxptycho, timed when asked (`common.Worker`)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import serve
from problem import EPS, PIXEL, THICKNESS, WAVELENGTH, Case, case_arguments, case_of, make_problem

import jaxptycho as jp


def make_gradient(case: Case):
    """A function of nothing that computes loss and gradient, by phase and probe, of a batch from the host."""
    problem = make_problem(case)
    grid = jp.Grid((case.pixels, case.pixels), PIXEL, wavelength=WAVELENGTH)
    model = jp.Model(
        probe=jp.PixelProbe(jnp.asarray(problem.probe)),
        specimen=jp.SliceStack(jnp.asarray(problem.phase), None, THICKNESS, (0.0, 0.0)),
        scan=jp.FreeScan(jp.PerShot(jnp.asarray(problem.positions, jnp.float32))),
        grid=grid,
    )
    weight = np.ones(case.shots, np.float32)
    batch = jp.Batch(np.int32(0), np.arange(case.shots, dtype=np.int32), problem.counts, weight)
    loss = jp.distribute(
        jp.misfit(lambda predicted, counts: jp.amplitude(predicted, counts, EPS)), jp.mesh()
    )

    @eqx.filter_jit
    def gradient(sought, model, batch):
        def of(sought):
            whole = eqx.tree_at(lambda m: (m.specimen.phase, m.probe.waves), model, sought)
            return loss(whole, batch)

        return jax.value_and_grad(of)(sought)

    sought = model.specimen.phase, model.probe.waves
    return lambda: float(jax.block_until_ready(gradient(sought, model, batch))[0])


def main():
    case = case_of(case_arguments(__doc__).parse_args())
    if jax.config.jax_num_cpu_devices < 1:
        cores = jp.one_device_per_core()
        while case.shots % cores:  # each device works off its share
            cores -= 1
        jax.config.update("jax_num_cpu_devices", cores)
    gradient = make_gradient(case)
    device = f"{jax.device_count()} × {jax.devices()[0].device_kind}"
    version = f"jaxptycho {jp.__version__}, jax {jax.__version__}"
    serve(gradient, version=version, device=device)


if __name__ == "__main__":
    main()
