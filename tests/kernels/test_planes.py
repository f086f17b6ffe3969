"""Transforms and convolutions against NumPy's: sizes, precisions, mapped, differentiated, on devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from models import TRANSFORM

from jaxptycho import kernels

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZES = [
    (16, 16),
    (64, 64),
    (18, 20),
    (66, 35),
    (128, 96),
    (22, 26),
    (17 * 2, 64),
]  # the last has no small factors


def random(*shape, dtype=complex):
    rng = np.random.default_rng(sum(shape))
    return jnp.asarray((rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype))


def close(found, wanted):
    found, wanted = np.asarray(found), np.asarray(wanted)
    error = np.max(np.abs(found - wanted)) / np.max(np.abs(wanted))
    return error < 50 * np.finfo(found.dtype).eps


def plain_step(wave, factor, kernel):
    return jnp.fft.ifft2(kernel * jnp.fft.fft2(factor[:, None] * wave))


def text(function, *arguments) -> str:
    return jax.jit(function).lower(*arguments).as_text()


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_transform_is_numpys(shape, dtype):
    wave, factor, kernel = (random(*lead, *shape, dtype=dtype) for lead in ((3, 2), (3,), ()))

    @jax.jit
    def transformed(wave, factor, kernel):
        return (
            kernels.fft2(wave),
            kernels.ifft2(wave),
            kernels.convolve(wave, kernel),
            kernels.convolve(wave, factor),
            kernels.step(wave, factor, kernel),
            kernels.diffract(wave, factor),
        )

    expected = (
        np.fft.fft2(wave),
        np.fft.ifft2(wave),
        np.fft.ifft2(kernel * np.fft.fft2(wave)),
        np.fft.ifft2(factor[:, None] * np.fft.fft2(wave)),
        np.fft.ifft2(kernel * np.fft.fft2(factor[:, None] * wave)),
        np.fft.fft2(factor[:, None] * wave),
    )
    for found, wanted in zip(transformed(wave, factor, kernel), expected, strict=True):
        assert found.dtype == dtype
        assert close(found, wanted)


@pytest.mark.usefixtures("cpu_llvm")
def test_cpu_kernels_compute_what_has_small_factors():
    for shape in SIZES:
        own = "jaxptycho_fft2" in text(kernels.fft2, random(*shape))
        assert own == (34 not in shape)
    assert "jaxptycho_step_64x64_f32" in text(
        kernels.step, *(random(*s, 64, 64, dtype=np.complex64) for s in ((2,), (), ()))
    )
    assert "jaxptycho" not in text(kernels.fft2, random(6, 8)), "smaller than a register"
    assert "jaxptycho" not in text(kernels.fft2, random(1024, 512)), "larger than the cache"


def test_machine_code_is_kept_beside_compiled_programs(cpu_llvm, tmp_path, monkeypatch):
    plan, made, compiled = cpu_llvm.Planes("fft2", 16, 20, True), [], cpu_llvm._compiled
    monkeypatch.setattr(cpu_llvm, "_compiled", lambda plan: made.append(plan) or compiled(plan))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    try:
        codes = [cpu_llvm._machine_code(plan) for _ in range(2)]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert made == [plan]
    assert codes[0] == codes[1]
    (file,) = (tmp_path / "cache").glob("jaxptycho-*.o")
    assert file.read_bytes() == codes[0]


def test_gpus_get_transforms_that_scale_nothing_apart():
    lowered = (
        jax.jit(kernels.convolve)
        .trace(random(2, 16, 16), random(16, 16))
        .lower(lowering_platforms=("cuda",))
    )
    assert "IFFT" not in lowered.as_text()


@pytest.mark.parametrize(
    "shape", [(16, 24), pytest.param((18, 20), marks=pytest.mark.slow)], ids=str
)
def test_derivatives(shape):
    wave, factor, kernel = random(3, 2, *shape), random(3, *shape), random(*shape)

    def of(step):
        return jax.jit(lambda *parts: jnp.sum(jnp.abs(step(*parts)) ** 4))

    for which in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
        found, wanted = (
            jax.jit(jax.grad(of(s), which))(wave, factor, kernel)
            for s in (kernels.step, plain_step)
        )
        assert all(map(close, found, wanted))
    for which in ((0,), (1,), (0, 1)):
        both = of(kernels.diffract), of(lambda wave, factor: jnp.fft.fft2(factor[:, None] * wave))
        found, wanted = (jax.jit(jax.grad(function, which))(wave, factor) for function in both)
        assert all(map(close, found, wanted))
    check_grads(of(kernels.diffract), (wave, factor), 2, ("fwd", "rev"), atol=1e-3, rtol=1e-3)
    check_grads(of(kernels.step), (wave, factor, kernel), 2, ("fwd", "rev"), atol=1e-3, rtol=1e-3)
    check_grads(of(kernels.convolve), (wave, kernel), 2, ("fwd", "rev"), atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("cpu_llvm")
def test_a_gradient_takes_one_pair_of_transforms_for_wave_and_factor():
    parts = random(3, 2, 16, 16), random(3, 16, 16), random(16, 16)
    for function, operands in ((kernels.step, parts), (kernels.diffract, parts[:2])):
        gradient = jax.grad(lambda *parts, f=function: jnp.sum(jnp.abs(f(*parts)) ** 2), (0, 1))
        compiled = jax.jit(gradient).lower(*operands).compile().as_text()
        assert compiled.count('custom_call_target="jaxptycho_') == 2


def test_transposes_are_those_of_the_matrices():
    wave, other, kernel = random(3, 18, 20), random(3, 18, 20), random(18, 20)
    for function in (kernels.fft2, kernels.ifft2, lambda w: kernels.convolve(w, kernel)):
        (back,) = jax.linear_transpose(function, wave)(other)
        assert jnp.allclose(jnp.sum(function(wave) * other), jnp.sum(wave * back))


@pytest.mark.parametrize(
    "axes",
    [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, None), (0, None, 0), (1, 2, 0)],
)
def test_mapped_over_any_axes(axes):
    parts = random(3, 2, 16, 24), random(3, 16, 24), random(16, 24)

    def gradient(step):
        return jax.grad(lambda w, f, k: jnp.sum(jnp.abs(step(w, f, k) * k) ** 2), (0, 1, 2))

    def stacked(part, axis):
        return part if axis is None else np.moveaxis(np.multiply.outer([1, 2, 1j], part), 0, axis)

    several = tuple(map(stacked, parts, axes))
    for of in (lambda step: step, gradient):
        found, wanted = (
            jax.jit(jax.vmap(of(step), axes))(*several) for step in (kernels.step, plain_step)
        )
        assert all(map(close, jax.tree.leaves(found), jax.tree.leaves(wanted)))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_changes_in_many_directions(which):
    parts = random(3, 2, 16, 24), random(3, 16, 24), random(16, 24)
    directions = random(5, *parts[which].shape)

    def change(step):
        def along(direction):
            return step(*parts[:which], parts[which] + direction, *parts[which + 1 :])

        return jax.vmap(jax.linearize(along, jnp.zeros_like(parts[which]))[1])(directions)

    assert close(change(kernels.step), change(plain_step))


def test_each_device_transforms_its_own():
    mesh = jax.make_mesh((8,), ("shots",), axis_types=(AxisType.Auto,))
    wave, factor, kernel = random(8, 2, 16, 16), random(8, 16, 16), random(16, 16)
    spread = jax.jit(
        jax.shard_map(
            kernels.step, mesh=mesh, in_specs=(P("shots"), P("shots"), P()), out_specs=P("shots")
        )
    )
    assert close(spread(wave, factor, kernel), plain_step(wave, factor, kernel))
    compiled = spread.lower(wave, factor, kernel).compile().as_text()
    assert "all-gather" not in compiled
    transforms = TRANSFORM.findall(compiled)
    assert transforms
    assert all(math.prod(map(int, sides.split(","))) == 2 * 16 * 16 for sides in transforms)
