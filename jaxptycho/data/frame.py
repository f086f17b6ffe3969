"""Frame of the positions: their origin, stored in double precision.

Stages report positions up to centimetres from zero, where single precision rounds to 8 Å. A model
uses an origin near its scan, and files contain the original numbers.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..physics.types import Numbers

MAX_DISTANCE = (
    10.0  # times (extent of the scan + window), beyond which positions get a nearer origin
)
MAX_ROUNDING = 0.01  # pixels


def origin_of(positions: Sequence[np.ndarray], window: Numbers) -> tuple[float, float]:
    """Origin (y, x) [Å] near positions [shot, 2] of all views.

    Along each axis their middle, rounded to an integer Å, if it is farther from zero than
    `MAX_DISTANCE` × (extent + `window` [Å]), otherwise 0. A few positions far from the rest are
    ignored.
    """
    places = np.concatenate(positions)
    places = places[np.isfinite(places).all(1)]
    if not len(places):
        return 0.0, 0.0
    middle = np.median(places, axis=0)
    extent = np.ptp(np.percentile(places, (10, 90), axis=0), axis=0)
    reach = extent + np.asarray(window)
    y, x = np.where(np.abs(middle) > MAX_DISTANCE * reach, np.rint(middle), 0.0)
    return float(y), float(x)


def spacing(values: Numbers, kind: Any = None) -> float:
    """Rounding step of the type `kind` at the largest of `values`; 0 for integers.

    The default of `kind` is the type of `values`.
    """
    given = np.asarray(values)
    largest = np.max(np.abs(given), where=np.isfinite(given), initial=0)
    kind = np.asarray(values).dtype if kind is None else np.dtype(kind)
    return float(np.spacing(largest.astype(kind))) if kind.kind == "f" else 0.0


def warn_of_rounding(what: str, step: float, pixel: float) -> None:
    """Warn that `what` is rounded to `step` [Å] where this is more than 1 % of a `pixel` [Å]."""
    if step > MAX_ROUNDING * pixel:
        warnings.warn(
            f"{what} come in less than double precision and are rounded to {step:.2g} Å, "
            f"with pixels of {pixel:.3g} Å; store them in double precision, or "
            "count them from a nearer origin",
            stacklevel=3,
        )


def require_near_axis(positions: Sequence[np.ndarray], pixel: float) -> None:
    """Raise ValueError for positions of a tilt series too far from its axis.

    Too far means that single precision rounds them to more than 1 % of a `pixel` [Å].
    """
    steps = [spacing(own, np.float32) for own in positions]
    view = int(np.argmax(steps))
    step = steps[view]
    if step > MAX_ROUNDING * pixel:
        farthest = float(np.nanmax(np.abs(positions[view])))
        raise ValueError(
            f"positions of view {view} reach {farthest:.4g} Å from zero, where single precision "
            f"rounds them to {step:.2g} Å; in a tilt series their zero is required to be on the "
            "tilt axis, so subtract the position of the axis"
        )
