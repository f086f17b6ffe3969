"""What fewer bits change: errors of loss and gradient after 1, 10 and 50 slices, beside what another measurement changes.

    python benchmarks/bench_precision.py [--json FILE]

The reference is complex128. complex64 is how the package computes; then, in complex64, the waves that multislice
keeps for its gradient are stored in fewer bits, or the counts are. `other counts` is the yardstick: the same
shots measured again, a new draw of the same Poisson noise. Errors are relative norms of differences, of the gradients by
the specimen's phase and by the probe.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import Table, arguments, opening, save
from problem import EPS, PIXEL, THICKNESS, WAVELENGTH, Case, make_problem

import jaxptycho as jp
from jaxptycho.physics.waves import Exit, multislice, propagate, transmit

SHOTS, PIXELS, MODES, SLICES = 8, 64, 2, (1, 10, 50)
BRIGHT = 10  # times the amplitude of the usual problem: 10⁶ quanta a shot, some thousand in a pixel
SHORT = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


def stored_as(dtype):
    """`waves.multislice` for one kernel, whose waves are kept as `dtype` for the gradient by wave and slices."""

    def keep(wave):
        return wave.real.astype(dtype), wave.imag.astype(dtype)

    def forward(wave, slices, kernel):
        wave, kept = jax.lax.scan(
            lambda a, t: (propagate(transmit(a, t), kernel), keep(a)), wave, slices[:-1]
        )
        return transmit(wave, slices[-1]), (kept, keep(wave), slices, kernel)

    def backward(seen, cotangent):
        kept, last, slices, kernel = seen

        def back(after, entering, transmission, step):
            entering = jax.lax.complex(*(part.astype(after.real.dtype) for part in entering))
            return jax.vjp(step, entering, transmission)[1](after)

        cotangent, of_last = back(cotangent, last, slices[-1], transmit)
        step = lambda a, t: propagate(transmit(a, t), kernel)  # noqa: E731
        cotangent, others = jax.lax.scan(
            lambda c, s: back(c, *s, step), cotangent, (kept, slices[:-1]), reverse=True
        )
        return cotangent, jnp.concatenate([others, of_last[None]]), jnp.zeros_like(kernel)

    function = jax.custom_vjp(lambda *arguments: forward(*arguments)[0])
    function.defvjp(forward, backward)
    return lambda wave, slices, kernel: Exit(
        function(wave, slices, kernel), jnp.ones_like(slices[0])
    )


def gradient(problem, counts, way=multislice):
    """The amplitude loss of all shots, and its gradients by phase and probe, in the precision that is switched on."""
    bits = jnp.zeros(()).dtype
    model = jp.Model(
        probe=jp.PixelProbe(jnp.asarray(problem.probe) * jnp.ones((), bits)),
        specimen=jp.SliceStack(jnp.asarray(problem.phase, bits), None, THICKNESS, (0.0, 0.0)),
        scan=jp.FreeScan(jp.PerShot(jnp.asarray(problem.positions, bits))),
        grid=jp.Grid(problem.counts.shape[1:], PIXEL, wavelength=WAVELENGTH),
    )
    shots = np.arange(len(counts), dtype=np.int32)
    batch = jp.Batch(np.int32(0), shots, counts, jnp.ones(len(shots), bits))
    loss = jp.misfit(lambda predicted, counts: jp.amplitude(predicted, counts, EPS), multislice=way)

    @jax.jit
    def of(sought):
        return loss(eqx.tree_at(lambda m: (m.specimen.phase, m.probe.waves), model, sought), batch)

    value, found = jax.value_and_grad(of)((model.specimen.phase, model.probe.waves))
    return tuple(np.asarray(x) for x in (value, *found))


def measured(problem, seed: int):
    """Counts of an empty specimen, as `problem` has them."""
    expected = np.sum(np.abs(np.fft.fft2(problem.probe, norm="ortho")) ** 2, 0)
    return np.random.default_rng(seed).poisson(expected, problem.counts.shape).astype(np.uint16)


def variants(problem):
    """Loss and gradients by what was changed; the first is the reference."""
    problem = problem._replace(probe=BRIGHT * problem.probe)
    counts = measured(problem, 0)
    with jax.enable_x64(True):
        yield "complex128", gradient(problem, counts)
    yield "other counts", gradient(problem, measured(problem, 1))
    yield "complex64", gradient(problem, counts)
    for name, dtype in SHORT.items():
        if len(problem.phase) > 1:
            yield f"{name} waves", gradient(problem, counts, stored_as(dtype))
        yield f"{name} counts", gradient(problem, jnp.asarray(counts, dtype))


def main():
    args = arguments(__doc__, rounds=1).parse_args()
    opening()
    print(f"jaxptycho {jp.__version__}, jax {jax.__version__}, {jax.devices()[0].device_kind}")
    size = (2, 16, (1, 3)) if args.quick else (SHOTS, PIXELS, SLICES)
    table, rows = Table(slices="6d", what="<16s", loss="9.1e", phase="9.1e", probe="9.1e"), []
    for slices in size[2]:
        exact = None
        for what, found in variants(make_problem(Case(*size[:2], slices, MODES))):
            exact = exact or found
            errors = (
                np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(found, exact, strict=True)
            )
            rows.append(
                {"slices": slices, "what": what}
                | dict(zip(("loss", "phase", "probe"), map(float, errors), strict=True))
            )
            table.line(**rows[-1])
    save(args, rows, device=jax.devices()[0].device_kind)


if __name__ == "__main__":
    main()
