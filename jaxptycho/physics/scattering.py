"""Electron scattering factors of neutral atoms, and atoms as sums of Gaussians.

The published coefficients of all elements up to Z = 103 are in `tables/`.

Every parametrisation is a sum of Lorentzians in k, their squares and Gaussians. A Lorentzian is
an integral over Gaussians, 1/(1 + x) = ∫₀^∞ e^{−t(1+x)} dt, and in u = ln t the trapezoidal rule
converges exponentially; about twenty Gaussians of the same widths for all elements represent each
of them to 10⁻⁴ (Beylkin & Monzón, Appl. Comput. Harmon. Anal. 28, 131 (2010)). Gaussians are
separable, remain Gaussians under vibration, and their integral over a slab is an error function.
"""

from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from .types import Numbers

VOLT_ANGSTROM2 = 47.87764737  # h²/(2πm₀e) [V·Å²]: V(k) [V·Å³] for each Å of f(k)
MAX_ATOMIC_NUMBER = 103
TABLES = {"lobato": "lobato2014.csv", "kirkland": "kirkland2010.csv"}
STEP = 0.55  # step of ln γ
MAX_WIDTH = 1e3  # Å², larger than the widest Gaussian of any atom
MIN_WIDTH = 0.1  # times 1/k²: narrower Gaussians are merged
MIN_AMPLITUDE = 1e-6  # relative to the strongest Gaussian of an element


class Gaussians(NamedTuple):
    """Sums f(k) = Σ_g amplitude_g e^{−width_g k²}: one row per atom, padded with amplitude 0."""

    amplitude: Float[Array | np.ndarray, "atom g"]  # Å
    width: Float[Array | np.ndarray, "atom g"]  # Å²


@cache
def table(name: str) -> dict[int, Float[np.ndarray, "rows terms"]]:
    """Coefficients by atomic number: rows a, b of "lobato" (2014), a, b, c, d of "kirkland"."""
    if name not in TABLES:
        raise ValueError(f"unknown parametrisation {name!r}; known are {', '.join(TABLES)}")
    text = (files("jaxptycho.physics") / "tables" / TABLES[name]).read_text(encoding="utf-8")
    rows = np.loadtxt([line for line in text.splitlines() if line[0].isdigit()], delimiter=",")
    return {int(row[0]): row[1:].reshape(2 if name == "lobato" else 4, -1) for row in rows}


def require_known(numbers: Numbers) -> None:
    """Raise ValueError for an atomic number without scattering factors."""
    unknown = sorted({int(z) for z in np.ravel(numbers) if not 1 <= z <= MAX_ATOMIC_NUMBER})
    if unknown:
        raise ValueError(
            f"there are no scattering factors for atomic number {', '.join(map(str, unknown))}; "
            f"give 1 to {MAX_ATOMIC_NUMBER} (a placeholder among the atoms?)"
        )


def scattering_factor(number: int, k2: Any, name: str = "lobato") -> Any:
    """Scattering factor f(k) [Å] of an element at squared frequencies `k2` [1/Å²].

    Lobato & Van Dyck, Acta Cryst. A70, 636 (2014), eq. 15; Kirkland 2010, eq. C.15.
    """
    require_known(number)
    k2 = k2[..., None]
    if name == "lobato":
        a, b = table(name)[number]
        return (a * (2 + b * k2) / (1 + b * k2) ** 2).sum(-1)
    a, b, c, d = table(name)[number]
    return (a / (k2 + b) + c * np.e ** (-d * k2)).sum(-1)


def gaussians(
    numbers: Int[np.ndarray, " atom"], name: str = "lobato", k_max: float = 10.0
) -> Gaussians:
    """Atoms as sums of Gaussians, accurate to 3·10⁻⁴ of f(k) up to `k_max` [1/Å].

    A lower `k_max` requires fewer Gaussians.
    """
    require_known(numbers)
    own = {int(z): _of_element(int(z), name, MIN_WIDTH / k_max**2) for z in np.unique(numbers)}
    longest = max((len(element) for element in own.values()), default=0)
    padded = {
        z: np.pad(e, ((0, longest - len(e)), (0, 0)), constant_values=(0.0,))
        for z, e in own.items()
    }
    rows = np.stack([padded[int(z)] for z in numbers]) if len(numbers) else np.zeros((0, 0, 2))
    return Gaussians(rows[..., 0], np.maximum(rows[..., 1], 1e-6))


@cache
def _of_element(number: int, name: str, least: float) -> Float[np.ndarray, "g 2"]:
    """Amplitude [Å] and width [Å²] of the Gaussians of an element, narrowest first."""
    width = np.exp(np.arange(np.log(1e-12), np.log(MAX_WIDTH), STEP))
    extra = np.zeros((0, 2))
    if (
        name == "lobato"
    ):  # (2 + x)/(1 + x)² = 1/(1 + x) + 1/(1 + x)² with x = bk², the latter ∫ t e^{−t(1+x)} dt
        a, b = (row[:, None] for row in table(name)[number])
        density = (a / b * np.exp(-width / b) * (1 + width / b)).sum(0)
    else:  # a/(k² + b) = ∫ a e^{−γ(k² + b)} dγ
        a, b, c, d = table(name)[number]
        density = (a[:, None] * np.exp(-width * b[:, None])).sum(0)
        extra = np.stack([c, d], 1)
    amplitude = STEP * width * density
    narrow = width < least
    weight = amplitude[narrow].sum()
    first = [weight, max((amplitude * width)[narrow].sum() / weight, 0.0) if weight else 0.0]
    found = np.concatenate([[first], np.stack([amplitude, width], 1)[~narrow], extra])
    return found[np.abs(found[:, 0]) > MIN_AMPLITUDE * np.abs(found[:, 0]).max()]
