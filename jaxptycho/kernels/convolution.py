"""Convolutions of planes with a transfer function, and the step of multislice that ends in one."""

from functools import partial

from jax.interpreters import ad
from jaxtyping import Array, Complex

from .fourier import PRODUCT_TANGENT_OPERANDS, fft2, ifft2, product_tangent
from .primitives import derived, derived_by_parts, is_known, matched, operation
from .reference import Planes, gradients, jnp_spread


def convolve(wave: Planes, kernel: Complex[Array, "*k y x"]) -> Planes:
    """F⁻¹[kernel · F wave]; leading axes of `kernel` are the first ones of `wave`."""
    return _CONVOLVE.bind(*matched(wave, kernel))


def step(
    wave: Planes,
    factor: Complex[Array, "*f y x"],
    kernel: Complex[Array, "*k y x"],
) -> Planes:
    """F⁻¹[kernel · F(factor · wave)]; leading axes of `factor` and `kernel` are the first ones
    of `wave`."""
    return _STEP.bind(*matched(wave, factor, kernel))


def _convolution_derivative(one, there, back, primals, tangents):
    (wave, kernel) = primals
    (of_wave, of_kernel) = tangents
    parts = [one.bind(*matched(of_wave, kernel))] if is_known(of_wave) else []
    if is_known(of_kernel):
        parts.append(back(jnp_spread(of_kernel, wave) * there(wave)))
    return one.bind(*primals), sum(parts[1:], parts[0])


def _convolution_transpose(other, cotangent, wave, kernel):
    return [other.bind(*matched(cotangent, kernel)), None]


def _step_tangent(*tangents_and_primals):
    *both, kernel = tangents_and_primals
    return _CONVOLVE.bind(*matched(product_tangent(*both), kernel))


def _step_derivative(primals, tangents):
    wave, factor, _ = primals
    *of_both, of_kernel = tangents
    parts = []
    if any(map(is_known, of_both)):
        changes = map(ad.instantiate_zeros, of_both)
        parts.append(_STEP_TANGENT.bind(*matched(*changes, *primals)))
    if is_known(of_kernel):
        parts.append(ifft2(jnp_spread(of_kernel, wave) * fft2(jnp_spread(factor, wave) * wave)))
    return _STEP.bind(*primals), sum(parts[1:], parts[0])


def _step_transpose(cotangent, of_wave, of_factor, wave, factor, kernel):
    return [*_STEP_BACK.bind(*matched(cotangent, factor, kernel, wave)), None, None, None]


def _step_back(wave, factor, kernel, entered):
    return gradients(_CORRELATE.bind(*matched(wave, kernel)), factor, entered)


_CONVOLVE, _CORRELATE = map(operation, ("convolve", "correlate"))
_STEP, _STEP_BACK = map(operation, ("step", "step_back"))
# one primitive for the change with wave and factor: its transpose takes one pair of transforms
_STEP_TANGENT = derived("step_tangent", (*PRODUCT_TANGENT_OPERANDS, "kernel"), _step_tangent)
for _one, _other, _there, _back in (
    (_CONVOLVE, _CORRELATE, fft2, ifft2),
    (_CORRELATE, _CONVOLVE, ifft2, fft2),
):
    ad.primitive_jvps[_one] = partial(_convolution_derivative, _one, _there, _back)
    ad.primitive_transposes[_one] = partial(_convolution_transpose, _other)
ad.primitive_jvps[_STEP] = _step_derivative
ad.primitive_transposes[_STEP_TANGENT] = _step_transpose
derived_by_parts(_STEP_BACK, _step_back)
