"""Fourier transforms of planes, and of the product of a wave and a factor that planes share."""

from typing import Any

from jax.interpreters import ad
from jaxtyping import Array, Complex

from .primitives import derived, derived_by_parts, matched, operation
from .reference import Planes, gradients, jnp_spread

PRODUCT_TANGENT_OPERANDS = "wave", "factor", "entered", "entered factor"


def fft2(wave: Planes) -> Planes:
    """Σ_r wave(r) e^{−2πi k·r}, zero frequency in the corner: `jnp.fft.fft2`."""
    return _FFT.bind(wave)


def ifft2(wave: Planes) -> Planes:
    """Inverse of `fft2`: `jnp.fft.ifft2`."""
    return _IFFT.bind(wave)


def diffract(wave: Planes, factor: Complex[Array, "*f y x"]) -> Planes:
    """F(factor · wave); leading axes of `factor` are the first ones of `wave`."""
    return _DIFFRACT.bind(*matched(wave, factor))


def product_tangent(of_wave: Any, of_factor: Any, wave: Any, factor: Any) -> Any:
    """Tangent of factor · wave."""
    return jnp_spread(factor, wave) * of_wave + jnp_spread(of_factor, wave) * wave


def _diffract_tangent(*tangents_and_primals):
    return fft2(product_tangent(*tangents_and_primals))


def _diffract_derivative(primals, tangents):
    changes = map(ad.instantiate_zeros, tangents)
    return _DIFFRACT.bind(*primals), _DIFFRACT_TANGENT.bind(*matched(*changes, *primals))


def _diffract_transpose(cotangent, of_wave, of_factor, wave, factor):
    return [*_DIFFRACT_BACK.bind(*matched(cotangent, factor, wave)), None, None]


def _diffract_back(wave, factor, entered):
    return gradients(fft2(wave), factor, entered)


_FFT, _IFFT = map(operation, ("fft2", "ifft2"))
_DIFFRACT, _DIFFRACT_BACK = map(operation, ("diffract", "diffract_back"))
# one primitive for the change with both operands: its transpose takes one transform for both
_DIFFRACT_TANGENT = derived("diffract_tangent", PRODUCT_TANGENT_OPERANDS, _diffract_tangent)
for _one in (_FFT, _IFFT):  # their matrices are symmetric
    ad.deflinear2(_one, lambda cotangent, _, one=_one: [one.bind(cotangent)])
ad.primitive_jvps[_DIFFRACT] = _diffract_derivative
ad.primitive_transposes[_DIFFRACT_TANGENT] = _diffract_transpose
derived_by_parts(_DIFFRACT_BACK, _diffract_back)
