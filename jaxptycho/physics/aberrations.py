"""Aberration coefficients to fifth order → phase of the probe-forming lens (Krivanek 1999).

Coefficients are named as in the literature: `C10` (−defocus), `C12`, `C21`, `C23`, `C30` …
`C56`, in Å. Those with m > 0 have two components, `C12a` = C cos(mφ₀) and `C12b` =
C sin(mφ₀), which unlike magnitude and angle are differentiable at zero.
"""

import math
import re
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .grids import Grid
from .types import Pair, Scalar

Frequencies = Float[Array | np.ndarray, "..."]
Wavelength = float | Float[Array, ""]
ORDERS = tuple((n, m) for n in range(1, 6) for m in range((n + 1) % 2, n + 2, 2))
NAMES = tuple(f"C{n}{m}{part}" for n, m in ORDERS for part in (("a", "b") if m else ("",)))


def cartesian(coefficients: Mapping[str, float]) -> dict[str, float]:
    """Differentiable components from any mix of `defocus`, `C12` with `phi12` [rad], `C12a`.

    `defocus` > 0 is underfocus, C10 = −defocus. Raises ValueError for an unknown name.
    """
    result: dict[str, float] = {}
    for name, value in coefficients.items():
        if name == "defocus":
            result["C10"] = -value
        elif name in NAMES:
            result[name] = value
        elif re.fullmatch(r"C\d\d", name) and f"{name}a" in NAMES:
            angle = int(name[2]) * coefficients.get(f"phi{name[1:]}", 0.0)
            result[f"{name}a"], result[f"{name}b"] = (
                value * math.cos(angle),
                value * math.sin(angle),
            )
        elif not (re.fullmatch(r"phi\d\d", name) and f"C{name[3:]}" in coefficients):
            raise ValueError(f"unknown aberration {name!r}; known are defocus, {', '.join(NAMES)}")
    return result


def order(name: str) -> int:
    """Radial order n of a coefficient, from its name."""
    return int(name[1])


def basis(name: str, grid: Grid, centre: Pair = (0.0, 0.0)) -> Float[Array, "y x"]:
    """Phase [rad] of a coefficient of 1 Å, (2π/λ)(λk)^{n+1}/(n+1) · cos or sin mφ.

    k is relative to `centre` (y, x) [rad], the centre of the aperture.
    """
    ky, kx = grid.frequencies()
    wavelength = grid.wavelength
    return basis_at(name, ky - centre[0] / wavelength, kx - centre[1] / wavelength, wavelength)


def basis_at(
    name: str, ky: Frequencies, kx: Frequencies, wavelength: Scalar
) -> Float[Array, "..."]:
    """`basis` at the frequencies `ky`, `kx` [1/Å], of shapes that broadcast.

    With w = λ(kx + i ky) it is the polynomial (2π/λ)/(n+1) · Re or Im of w^m |w|^{n+1−m}.
    """
    n = int(name[1])
    m = int(name[2])
    y, x = wavelength * jnp.asarray(ky), wavelength * jnp.asarray(kx)
    real, imaginary = jnp.ones_like(x + y), jnp.zeros_like(x + y)
    for _ in range(m):
        real, imaginary = real * x - imaginary * y, real * y + imaginary * x
    part = imaginary if name.endswith("b") else real
    return (
        2 * math.pi / jnp.asarray(wavelength) / (n + 1) * part * (x**2 + y**2) ** ((n + 1 - m) // 2)
    )


def phase_at(
    coefficients: Mapping[str, Scalar], ky: Frequencies, kx: Frequencies, wavelength: Wavelength
) -> Float[Array, "..."]:
    """Phase χ [rad] of the aberrations at the frequencies `ky`, `kx` [1/Å] from the optic axis."""
    terms = (
        jnp.asarray(value) * basis_at(name, ky, kx, wavelength)
        for name, value in coefficients.items()
    )
    return sum(terms, jnp.zeros_like(ky + kx))


def gradient_at(
    coefficients: Mapping[str, Scalar], ky: Frequencies, kx: Frequencies, wavelength: float
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Displacement (y, x) [Å] ∇χ/2π of a ray at the frequencies `ky`, `kx` [1/Å].

    Of defocus alone −λ·defocus·k. The image in the bright-field pixel k is shifted by −∇χ/2π.
    """
    ky, kx = jnp.broadcast_arrays(ky, kx)

    one, zero = jnp.ones_like(ky), jnp.zeros_like(ky)
    phase = partial(phase_at, coefficients, wavelength=wavelength)
    along_y = jax.jvp(phase, (ky, kx), (one, zero))[1] / (2 * math.pi)
    along_x = jax.jvp(phase, (ky, kx), (zero, one))[1] / (2 * math.pi)
    return along_y, along_x


def phase_surface(
    coefficients: Mapping[str, Scalar], grid: Grid, centre: Pair = (0.0, 0.0)
) -> Float[Array, "y x"]:
    """Phase χ(k) [rad] of the aberrations; the probe is A e^{−iχ}.

    χ = (2π/λ) Σ (λk)^{n+1}/(n+1) · C_{n,m} cos m(φ−φ_{n,m}). k is relative to `centre` (y, x)
    [rad], the centre of the aperture.
    """
    terms = (jnp.asarray(value) * basis(name, grid, centre) for name, value in coefficients.items())
    return sum(terms, jnp.zeros(grid.shape))


def aperture(grid: Grid, semiangle: Scalar, centre: Pair = (0.0, 0.0)) -> Float[Array, "y x"]:
    """Round aperture of `semiangle` [rad] around `centre` (y, x) [rad] with a soft edge of one
    pixel.
    """
    ky, kx = grid.frequencies()
    dy, dx = ky - centre[0] / grid.wavelength, kx - centre[1] / grid.wavelength
    radius = jnp.sqrt(dy**2 + dx**2 + 1e-30)
    return jnp.clip((semiangle / grid.wavelength - radius) / max(grid.dk) + 0.5, 0.0, 1.0)
