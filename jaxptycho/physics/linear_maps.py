"""Planes of an array whose features are mapped linearly: stretched, sheared or rotated."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..kernels.resampling import bspline
from .types import Pair

Planes = Inexact[Array, "z Y X"]
REACH = (-1, 0, 1, 2)  # samples around a position that its cubic spline consists of


def map_planes(planes: Planes, matrix: Float[Array, "2 2"], middle: Pair) -> Planes:
    """Planes O(m + M⁻¹(r − m)) for the matrix M on (y, x) and the middle m, both in pixels.

    Interpolated by the cubic B-spline (Unser, IEEE Signal Process. Mag. 16, 22 (1999)); beyond
    an edge continues the value at the edge. Differentiable with respect to all arguments.
    """
    _, rows, columns = planes.shape
    places = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"))
    m = jnp.reshape(jnp.asarray(middle, float), (2, 1, 1))
    y, x = jnp.tensordot(jnp.linalg.inv(matrix), places - m, 1) + m
    coefficients = _spline_coefficients(planes)
    first = jnp.floor(y).astype(int), jnp.floor(x).astype(int)
    total = jnp.zeros_like(planes)
    for dy in REACH:
        row = first[0] + dy
        along_y = bspline(y - row)
        for dx in REACH:
            column = first[1] + dx
            seen = coefficients[:, jnp.clip(row, 0, rows - 1), jnp.clip(column, 0, columns - 1)]
            total += (along_y * bspline(x - column)).astype(planes.dtype) * seen
    return total


def _spline_coefficients(planes: Planes) -> Planes:
    """Coefficients of the cubic spline that goes through the samples of a periodic plane."""
    _, rows, columns = planes.shape
    y, x = (jnp.cos(2 * jnp.pi * jnp.fft.fftfreq(n)) for n in (rows, columns))
    response = (2 + y[:, None]) * (2 + x) / 9
    found = jnp.fft.ifft2(jnp.fft.fft2(planes) / response)
    return (found if jnp.iscomplexobj(planes) else found.real).astype(planes.dtype)
