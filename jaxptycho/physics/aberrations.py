"""Aberration coefficients to fifth order → phase of the probe-forming lens (Krivanek 1999).

Coefficients are named as in the literature: `C10` (−defocus), `C12`, `C21`, `C23`, `C30` …
`C56`, in Å. Those with m > 0 have two components, `C12a` = C cos(mφ₀) and `C12b` =
C sin(mφ₀), which unlike magnitude and angle are differentiable at zero.
"""

import math
import re
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from .grids import Grid
from .types import Pair, Scalar

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
    n = int(name[1])
    m = int(name[2])
    w = grid.wavelength * (kx + 1j * ky) - (centre[1] + 1j * centre[0])  # (λk) e^{iφ}
    turned = w**m * jnp.abs(w) ** (n + 1 - m) if m else jnp.abs(w) ** (n + 1)
    part = turned.imag if name.endswith("b") else turned.real
    return 2 * math.pi / grid.wavelength / (n + 1) * part


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
