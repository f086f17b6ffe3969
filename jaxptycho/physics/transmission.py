"""Transmission function e^{iφ−a}, by sums, differences and products that compilers vectorise.

XLA's exponential of complex numbers computes sines one at a time on a CPU, and more slowly beyond
a few radians. Here the phase is reduced to −π/4 … π/4 by multiples of π/2, subtracted in three
parts short enough for exact products (Cody & Waite 1980), and the sine and cosine of the
remainder are the polynomials of Cephes (single precision) and FDLIBM (double precision).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float


class Precision(NamedTuple):
    """Parts of π/2, and coefficients of the polynomials of r², from the highest power down."""

    parts: tuple[float, float, float]
    sine: tuple[float, ...]  # (sin r − r)/r³
    cosine: tuple[float, ...]  # (cos r − 1 + r²/2)/r⁴


SINGLE = Precision(
    (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8),
    (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1),
    (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2),
)
DOUBLE = Precision(
    (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21),
    (
        1.58969099521155010221e-10,
        -2.50507602534068634195e-08,
        2.75573137070700676789e-06,
        -1.98412698298579493134e-04,
        8.33333333332248946124e-03,
        -1.66666666666666324348e-01,
    ),
    (
        -1.13596475577881948265e-11,
        2.08757232129817482790e-09,
        -2.75573143513906633035e-07,
        2.48015872894767294178e-05,
        -1.38888888888741095749e-03,
        4.16666666666666019037e-02,
    ),
)


Reals = Float[Array, "..."]


@jax.custom_jvp
def transmission_function(phase: Reals, loss: Reals) -> Complex[Array, "..."]:
    """Transmission e^{iφ−a} of a phase φ [rad] and a loss a, to the last digit for |φ| < 10⁴.

    For larger phases the error is that of the last digit of φ.
    """
    decay, cosine, sine = jnp.exp(-loss), *_circle(phase)
    return jax.lax.complex(decay * cosine, decay * sine)


@transmission_function.defjvp
def _transmission_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    wave = transmission_function(*primals)
    phase, loss = tangents
    return wave, wave * jax.lax.complex(-loss, phase)


def phase_and_absorption(transmission: Complex[Array, "..."]) -> tuple[Reals, Reals | None]:
    """Phase in (−π, π] [rad] and absorption −ln|t|, None where it is zero in all pixels."""
    loss = -jnp.log(jnp.maximum(jnp.abs(transmission), 1e-30))
    return jnp.angle(transmission), loss if float(jnp.max(jnp.abs(loss))) > 1e-5 else None


def _circle(phase: Array) -> tuple[Array, Array]:
    """Cosine and sine of a phase [rad]."""
    of = DOUBLE if phase.dtype == jnp.float64 else SINGLE
    turns = jnp.round(phase * phase.dtype.type(2 / np.pi))
    rest = phase
    for part in of.parts:
        rest = rest - turns * phase.dtype.type(part)
    square = rest * rest
    sine = rest + rest * square * _polynomial(of.sine, square)
    cosine = 1 - square / 2 + square * square * _polynomial(of.cosine, square)
    quarter = turns.astype(jnp.int32)
    odd = quarter & 1 == 1
    up = quarter & 2 == 0
    left = (quarter + 1) & 2 == 2
    real = jnp.where(odd, sine, cosine)
    imaginary = jnp.where(odd, cosine, sine)
    return jnp.where(left, -real, real), jnp.where(up, imaginary, -imaginary)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    value = x.dtype.type(coefficients[0])
    for c in coefficients[1:]:
        value = value * x + x.dtype.type(c)
    return value
