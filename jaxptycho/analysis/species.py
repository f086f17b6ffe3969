"""Elements of atoms, from the integrals of their peaks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..physics.types import Numbers

ROUNDS = 300  # rounds of expectation and maximisation
MIN_SPREAD = 1e-3  # relative spread of an element's integrals


class Species(NamedTuple):
    """Element of every atom, and the statistics of the integrals of each element."""

    symbols: np.ndarray  # one for each atom
    probability: Float[np.ndarray, " n"]  # of that element, given the mixture
    integral: dict[str, float]  # typical integral of each element, in the unit of the integrals
    spread: float  # relative standard deviation of the integrals of one element
    fraction: dict[str, float]  # of the atoms


def species_by_integral(
    integrals: Numbers, elements: Sequence[str] | Mapping[str, float]
) -> Species:
    """Elements of atoms, from a mixture of Gaussians in the logarithm of the peaks' integrals.

    `elements` are those expected, the weakest first; or a mapping to their expected integrals in
    any unit (such as scattering factors at k = 0), which start the mixture after a fit of their
    common factor. All elements share one relative spread. Of several starts the most likely
    mixture is used (Dempster, Laird & Rubin, J. R. Stat. Soc. B 39, 1 (1977)).
    """
    integrals = np.asarray(integrals, float)
    names = list(elements)
    if integrals.ndim != 1 or not np.isfinite(integrals).all() or not (integrals > 0).all():
        raise ValueError(
            f"integrals of shape {integrals.shape}, some of them not positive, name no elements; "
            "leave those peaks out"
        )
    if not names or len(set(names)) < len(names) or len(np.unique(integrals)) < len(names):
        raise ValueError(
            f"{len(np.unique(integrals))} different integrals cannot be divided into the elements "
            f"{names}; give at least one of each, every element once"
        )
    x = np.log(integrals)
    if isinstance(elements, Mapping):
        names = sorted(names, key=lambda name: elements[name])
        starts = [_scaled(x, np.log([elements[name] for name in names]))]
    else:
        part = (np.arange(len(names)) + 0.5) / len(names)
        evenly = x.min() + np.ptp(x) * (np.arange(len(names)) / max(len(names) - 1, 1))
        starts = [evenly, np.quantile(x, part), x.min() + np.ptp(x) * part]
    mixtures = [_mixture(x, start) for start in starts]
    mean, spread, weight, logs = max(
        mixtures, key=lambda mixture: np.sum(np.logaddexp.reduce(mixture[-1], axis=1))
    )
    order = np.argsort(mean)
    mean = mean[order]
    weight = weight[order]
    logs = logs[:, order]
    best = np.argmax(logs, axis=1)
    probability = np.exp(np.max(logs, axis=1) - np.logaddexp.reduce(logs, axis=1))
    typical, fraction = (
        dict(zip(names, map(float, v), strict=True)) for v in (np.exp(mean), weight)
    )
    return Species(np.asarray(names)[best], probability, typical, float(spread), fraction)


def species_by_ratio(
    integrals: Numbers, expected: Mapping[str, float], common: bool = True
) -> np.ndarray:
    """Element of every atom: the one with the nearest ratio of its `expected` integral.

    All expected integrals are scaled by a `common` factor first, unless the units are equal. With
    expected integrals from the same fit as the integrals, this is more reliable than a free
    mixture, whose weakest component may represent a few false peaks.
    """
    names = np.array(list(expected))
    x = np.log(np.asarray(integrals, float))
    typical = np.log([expected[name] for name in names])
    typical = _scaled(x, typical) if common else typical
    return names[np.argmin(np.abs(x[:, None] - typical), axis=1)]


def _scaled(x, expected):
    """Expected logarithms, with the common offset that minimises the distance of the atoms."""
    offsets = np.linspace(x.min() - expected.max(), x.max() - expected.min(), 401)
    sample = np.quantile(x, (np.arange(500) + 0.5) / 500)
    distance = np.abs(sample - offsets[:, None, None] - expected[:, None]).min(1).sum(1)
    return expected + offsets[np.argmin(distance)]


def _mixture(x, mean):
    """Means, common spread and weights of a mixture of Gaussians, and log parts of every x."""
    spread = max(np.ptp(x) / (4 * len(mean)), MIN_SPREAD)
    weight = np.full(len(mean), 1 / len(mean))
    for _ in range(ROUNDS):
        part = _parts(x, mean, spread, weight)
        share = np.exp(part - np.logaddexp.reduce(part, axis=1, keepdims=True))
        count = np.maximum(share.sum(0), 1e-9)
        before = mean
        mean = share.T @ x / count
        weight = count / len(x)
        spread = max(np.sqrt(np.sum(share * (x[:, None] - mean) ** 2) / len(x)), MIN_SPREAD)
        if np.abs(mean - before).max() < 1e-6 * spread:
            break
    return mean, spread, weight, _parts(x, mean, spread, weight)


def _parts(x, mean, spread, weight):
    deviation = (x[:, None] - mean) / spread
    return np.log(weight / (spread * np.sqrt(2 * np.pi))) - deviation**2 / 2
