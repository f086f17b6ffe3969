"""The transforms as primitives of JAX: linear in each operand, differentiable both ways, mapped over any axes.

The change of a `step` with its wave and its factor is one primitive, so that its transpose takes one pair of
transforms for both.
"""

import importlib.util
import math
import os
from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Complex

from . import kinds
from .manual_axes import match_vma

LARGEST = 2**18  # pixels of a plane that still fits the caches with its working space

Planes = Complex[Array, "*b y x"]


def fft2(x: Planes) -> Planes:
    """Σ_r x(r) e^{−2πi k·r}, zero frequency in the corner: `jnp.fft.fft2`."""
    return _FFT.bind(x)


def ifft2(x: Planes) -> Planes:
    """The inverse of `fft2`: `jnp.fft.ifft2`."""
    return _IFFT.bind(x)


def convolve(wave: Planes, kernel: Complex[Array, "*k y x"]) -> Planes:
    """F⁻¹[kernel · F wave]; leading axes of `kernel` are the first ones of `wave`."""
    return _CONVOLVE.bind(*_matched(wave, kernel))


def step(wave: Planes, factor: Complex[Array, "*f y x"], kernel: Complex[Array, "*k y x"]) -> Planes:
    """F⁻¹[kernel · F(factor · wave)]; leading axes of `factor` and `kernel` are the first ones of `wave`."""
    return _STEP.bind(*_matched(wave, factor, kernel))


def diffract(wave: Planes, factor: Complex[Array, "*f y x"]) -> Planes:
    """F(factor · wave); leading axes of `factor` are the first ones of `wave`."""
    return _DIFFRACT.bind(*_matched(wave, factor))


def by_own_code() -> bool:
    """Whether this process computes transforms on CPUs by code of its own.

    That code computes on the one core of its device and is about four times as fast as XLA's transforms there; where
    a device has more cores than that, those spread over all of them.
    """
    if importlib.util.find_spec("llvmlite") is None:
        return False
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 4 * jax.local_device_count("cpu") >= cores


def _matched(*operands):
    """All of one type, and varying over the devices over which any does."""
    dtype = jnp.result_type(*operands)
    return match_vma(*(a.astype(dtype) for a in operands))


def _spread(shared, wave):
    """What several planes of `wave` share, for each of them."""
    between = (1,) * (wave.ndim - shared.ndim)
    return shared.reshape(*shared.shape[:-2], *between, *shared.shape[-2:])


# in jax.numpy


def _gradients(behind, factor, entered):
    planes = range(factor.ndim - 2, entered.ndim - 2)
    return [_spread(factor, behind) * behind, jnp.sum(entered * behind, planes)]


def _conjugated(x):
    """`jnp.fft.ifft2` for cuFFT, which would scale in a pass of its own."""
    return jnp.conj(jnp.fft.fft2(jnp.conj(x))) / math.prod(x.shape[-2:])


def _functions(ifft):
    """What each primitive computes, by this inverse transform."""
    fft = jnp.fft.fft2

    def convolve(wave, kernel):
        return ifft(_spread(kernel, wave) * fft(wave))

    def correlate(wave, kernel):
        return fft(_spread(kernel, wave) * ifft(wave))

    def step(wave, factor, kernel):
        return convolve(_spread(factor, wave) * wave, kernel)

    def step_back(wave, factor, kernel, entered):
        return _gradients(correlate(wave, kernel), factor, entered)

    def diffract(wave, factor):
        return fft(_spread(factor, wave) * wave)

    def diffract_back(wave, factor, entered):
        return _gradients(fft(wave), factor, entered)

    return {
        "fft": fft,
        "ifft": ifft,
        "convolve": convolve,
        "correlate": correlate,
        "step": step,
        "step_back": step_back,
        "diffract": diffract,
        "diffract_back": diffract_back,
    }


def _product_tangent(of_wave, of_factor, wave, factor):
    return _spread(factor, wave) * of_wave + _spread(of_factor, wave) * wave


def _step_tangent(*tangents_and_primals):
    *both, kernel = tangents_and_primals
    return _CONVOLVE.bind(*_matched(_product_tangent(*both), kernel))


def _diffract_tangent(*both):
    return fft2(_product_tangent(*both))


# the primitives


def _primitive(kind: str, operands, results=("wave",)) -> Primitive:
    """A primitive whose results look like the operands of their names."""
    primitive = Primitive(f"{kind}_planes")
    primitive.multiple_results = len(results) > 1
    like = [operands.index(name) for name in results]

    def shapes(*avals):
        found = [avals[i] for i in like]
        return found if primitive.multiple_results else found[0]

    primitive.def_impl(jax.jit(primitive.bind))
    primitive.def_abstract_eval(shapes)
    batching.primitive_batchers[primitive] = partial(_batched, primitive, operands)
    return primitive


def _batched(primitive, names, operands, axes):
    """Along a new axis what all share stays as it is, and where that is not to be had it is repeated."""
    size = next(a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None)
    alone = {*names[1:]} <= {"factor", "kernel"} and axes[0] is not None and not any(a is not None for a in axes[1:])
    place = max((a.ndim - 2 for a in operands[1:]), default=0) if alone else 0

    def moved(name, operand, axis):
        if axis is not None:
            return jnp.moveaxis(operand, axis, place)
        if alone or (name == "kernel" and operand.ndim == 2):
            return operand
        return jnp.broadcast_to(operand, (size, *operand.shape))

    result = primitive.bind(*map(moved, names, operands, axes))
    return (result, [place] * len(result)) if primitive.multiple_results else (result, place)


_FFT, _IFFT, _CONVOLVE, _CORRELATE, _STEP, _STEP_BACK, _DIFFRACT, _DIFFRACT_BACK = (
    _primitive(kind, operands, kinds.results(kind)) for kind, operands in kinds.OPERANDS.items()
)
_CHANGES = ("wave", "factor", "entered", "entered factor")
_STEP_TANGENT = _primitive("step_tangent", (*_CHANGES, "kernel"))
_DIFFRACT_TANGENT = _primitive("diffract_tangent", _CHANGES)


def _lower_for_cpu(kind, otherwise, context, *operands):
    aval = context.avals_in[0]
    n, m = aval.shape[-2:]
    if n * m <= LARGEST and by_own_code():
        from . import handlers

        plan = handlers.Planes(kind, n, m, aval.dtype == jnp.complex64)
        if handlers.suits(plan):
            space = ShapedArray((handlers.scratch(plan),), jnp.float32 if plan.single else jnp.float64)
            rule = jax.ffi.ffi_lowering(handlers.target_of(plan))
            return rule(context.replace(avals_out=[*context.avals_out, space]), *operands)[:-1]
    return otherwise(context, *operands)


for _one, _function in ((_STEP_TANGENT, _step_tangent), (_DIFFRACT_TANGENT, _diffract_tangent)):
    mlir.register_lowering(_one, mlir.lower_fun(_function, multiple_results=False))
for _one in (_FFT, _IFFT, _CONVOLVE, _CORRELATE, _STEP, _STEP_BACK, _DIFFRACT, _DIFFRACT_BACK):
    _kind = _one.name.removesuffix("_planes")
    _plain, _on_gpu = (
        mlir.lower_fun(_functions(ifft)[_kind], multiple_results=_one.multiple_results)
        for ifft in (jnp.fft.ifft2, _conjugated)
    )
    mlir.register_lowering(_one, _plain)
    mlir.register_lowering(_one, partial(_lower_for_cpu, _kind, _plain), platform="cpu")
    for _platform in ("cuda", "rocm"):
        mlir.register_lowering(_one, _on_gpu, platform=_platform)


# their derivatives


def _known(tangent) -> bool:
    return not isinstance(tangent, ad.Zero)


def _convolution_derivative(one, there, back, primals, tangents):
    (wave, kernel), (of_wave, of_kernel) = primals, tangents
    parts = [one.bind(*_matched(of_wave, kernel))] if _known(of_wave) else []
    if _known(of_kernel):
        parts.append(back(_spread(of_kernel, wave) * there(wave)))
    return one.bind(*primals), sum(parts[1:], parts[0])


def _convolution_transpose(other, cotangent, wave, kernel):
    return [other.bind(*_matched(cotangent, kernel)), None]


def _step_derivative(primals, tangents):
    wave, factor, _ = primals
    *of_both, of_kernel = tangents
    parts = []
    if any(map(_known, of_both)):
        parts.append(_STEP_TANGENT.bind(*_matched(*map(ad.instantiate_zeros, of_both), *primals)))
    if _known(of_kernel):
        parts.append(ifft2(_spread(of_kernel, wave) * fft2(_spread(factor, wave) * wave)))
    return _STEP.bind(*primals), sum(parts[1:], parts[0])


def _step_transpose(cotangent, of_wave, of_factor, wave, factor, kernel):
    return [*_STEP_BACK.bind(*_matched(cotangent, factor, kernel, wave)), None, None, None]


def _diffract_derivative(primals, tangents):
    changes = map(ad.instantiate_zeros, tangents)
    return _DIFFRACT.bind(*primals), _DIFFRACT_TANGENT.bind(*_matched(*changes, *primals))


def _diffract_transpose(cotangent, of_wave, of_factor, wave, factor):
    return [*_DIFFRACT_BACK.bind(*_matched(cotangent, factor, wave)), None, None]


def _step_back(wave, factor, kernel, entered):
    return _gradients(_CORRELATE.bind(*_matched(wave, kernel)), factor, entered)


def _diffract_back(wave, factor, entered):
    return _gradients(fft2(wave), factor, entered)


def _derivative_by_parts(function, primals, tangents):
    """That of a derivative, by the operations that it consists of."""
    return jax.jvp(function, primals, tuple(map(ad.instantiate_zeros, tangents)))


for _one in (_FFT, _IFFT):  # their matrices are symmetric
    ad.deflinear2(_one, lambda cotangent, _, one=_one: [one.bind(cotangent)])
for _one, _other, _there, _back in ((_CONVOLVE, _CORRELATE, fft2, ifft2), (_CORRELATE, _CONVOLVE, ifft2, fft2)):
    ad.primitive_jvps[_one] = partial(_convolution_derivative, _one, _there, _back)
    ad.primitive_transposes[_one] = partial(_convolution_transpose, _other)
ad.primitive_jvps[_STEP], ad.primitive_transposes[_STEP_TANGENT] = _step_derivative, _step_transpose
ad.primitive_jvps[_DIFFRACT], ad.primitive_transposes[_DIFFRACT_TANGENT] = _diffract_derivative, _diffract_transpose
for _one, _function in (
    (_STEP_TANGENT, _step_tangent),
    (_STEP_BACK, _step_back),
    (_DIFFRACT_TANGENT, _diffract_tangent),
    (_DIFFRACT_BACK, _diffract_back),
):
    ad.primitive_jvps[_one] = partial(_derivative_by_parts, _function)
