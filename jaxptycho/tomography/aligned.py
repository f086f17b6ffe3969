"""Result of the alignment of a tilt series, and its summary."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..physics.types import Stack
from .projections import Geometry


class Aligned(NamedTuple):
    """Geometry of the views, and the misfit of each."""

    geometry: Geometry
    volume: Stack
    misfits: np.ndarray  # [view], rms of measured − projected, at the finest voxels
    bad: list[int]  # views that do not fit the others
    steps: np.ndarray  # Å, largest displacement in every round
    causes: Mapping[int, str] = MappingProxyType({})  # reason why each bad view was left out
    held_out: np.ndarray | None = None  # [view], fraction of variance that the others explain
    axis_deg: float | None = None  # direction of the tilt axis that explains the views better

    @property
    def explained(self) -> float | None:
        """Median fraction of the variance of a fitting view that a volume made without it explains.

        At the coarsest voxels: near 1 for a sound series, near 0 for unrelated views.
        """
        return (
            None if self.held_out is None else float(np.median(np.delete(self.held_out, self.bad)))
        )

    def summary(self) -> dict[str, str]:
        """Summary of the views."""
        fitting = np.delete(self.misfits, self.bad)
        rows = {"misfit of the views": f"median {np.median(fitting):.3g}"}
        if self.explained is not None:
            rows["explained by the other views"] = (
                f"{self.explained:.0%} of the variance of a view (median)"
            )
        rows["views that do not fit"] = ", ".join(map(str, self.bad)) or "none"
        return rows | {
            f"view {view} does not fit": cause for view, cause in sorted(self.causes.items())
        }

    def doubt(self, axis_deg: float = 0.0) -> str | None:
        """Reason to doubt the direction of the tilt axis, assumed at `axis_deg` in the patterns.

        None if no other direction explains the views better.
        """
        if self.axis_deg is None:
            return None
        better = axis_deg + self.axis_deg
        other = better - 180 if better > 0 else better + 180
        return (
            f"a volume explains {self.explained or 0:.0%} of the variance of a view that was left "
            f"out of it (median), and more with a tilt axis rotated by {self.axis_deg:+.0f}° in "
            f"the patterns; set data.tilt_axis_deg near {better:.0f} (or {other:.0f}: the "
            "opposite sense mirrors the volume along the beam, which projections do not show), or "
            "check the origin of the positions (data.origin), the unit of the tilts, and whether "
            "the specimen changed"
        )
