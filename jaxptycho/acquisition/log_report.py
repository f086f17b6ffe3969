"""Report on a recorded tilt series: places of its target, predictions, losses, drift."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import theilslopes

from ..io.atomic_write import write_table
from .replay import LogReplay, replay_filter, replay_rule
from .tilt_log import TiltLog, along_the_axis
from .units import ANGSTROM_PER_NM, ANGSTROM_PER_UM

FIGURE = "tracking.png"
TABLE = "tracking.csv"
COLUMNS = (
    "tilt_deg",
    "time_s",
    "shift_x_nm",
    "shift_y_nm",
    "error_x_nm",
    "error_y_nm",
    "sigma_x_nm",
    "sigma_y_nm",
    "rule_error_x_nm",
    "rule_error_y_nm",
    "lost",
)


class LogReport:
    """Log of one target with the replays of the filter and of the community rule.

    `across` is its place across the tilt axis [Å]; by default that of the first recorded shift of
    the specimen, or 0 where none was recorded.
    """

    def __init__(self, log: TiltLog, across: float | None = None):
        self.log = along_the_axis(log)
        recorded = float(log.shift[0, 1]) if log.shift_is_of_specimen else 0.0
        self.across = recorded if across is None else across
        self.filter = replay_filter(self.log, self.across)
        self.rule = replay_rule(self.log, self.across)

    def rows(self) -> dict[str, str]:
        """Name and value of every finding, as text with units."""
        log = self.log
        degrees = np.rad2deg(log.angle)
        kept = ~self.filter.lost
        rows = {
            "tilts": f"{len(degrees)}, {degrees.min():.1f}° to {degrees.max():.1f}° by "
            f"{np.rad2deg(log.increment):.1f}°",
            "shift recorded": "of the specimen (x along the tilt axis)"
            if log.shift_is_of_specimen
            else "of the image, in units of the microscope; y is the direction of largest steps",
            "target across the axis": f"{self.across / ANGSTROM_PER_UM:.2f} µm",
            "step along the axis": _spread(self._steps()[:, 0]),
            "step across the axis": _spread(self._steps()[:, 1]),
            "error of the filter, along and across": _errors(self.filter, kept),
            "error of the community rule": _errors(self.rule, kept),
            "target lost": self._losses(),
            "height by the filter": _height(self.filter),
            "height by the rule": _height(self.rule),
        }
        rows |= self._of_time() | self._of_alignment()
        if np.isfinite(log.defocus).all():
            low, high = np.percentile(log.defocus, [0, 100]) / ANGSTROM_PER_UM
            rows["underfocus"] = f"{low:.2f} to {high:.2f} µm"
        return rows

    def draw(self) -> Figure:
        """Places of the target, errors of prediction with their 2σ, and heights, over the tilt."""
        figure = Figure((10, 6.5), layout="constrained")
        (places, heights), errors = figure.subplots(2, 2)
        order = np.argsort(self.log.angle)
        degrees = np.rad2deg(self.log.angle[order])
        for column, name in enumerate(("along", "across")):
            shift = (self.log.shift - self.log.shift[0])[order, column] / ANGSTROM_PER_NM
            places.plot(degrees, shift, "o-", ms=3, label=name)
            self._draw_errors(errors[column], degrees, order, column)
            errors[column].set(title=f"Prediction {name} the axis")
        for replay, label in ((self.filter, "filter"), (self.rule, "rule")):
            height = replay.height[order] / ANGSTROM_PER_UM
            heights.plot(degrees, height, "o-", ms=3, label=label)
        places.set(ylabel="shift (nm)", title="Place of the target")
        heights.set(ylabel="z₀ (µm)", title="Height, upstream")
        for ax in (places, heights, *errors):
            for tilt in degrees[self.filter.lost[order]]:
                ax.axvline(tilt, color="C3", lw=0.8, alpha=0.5)
            ax.legend(fontsize="small")
        return figure

    def _draw_errors(self, ax, degrees, order, column):
        sigma = 2 * self.filter.sigma[order, column] / ANGSTROM_PER_NM
        ax.fill_between(degrees, -sigma, sigma, alpha=0.2, label="2σ of the filter")
        for replay, label, mark in ((self.filter, "filter", "o"), (self.rule, "rule", "x")):
            ax.plot(degrees, replay.error[order, column] / ANGSTROM_PER_NM, mark, ms=4, label=label)
        bound = 2 * np.nanmax(sigma)  # a rule that runs away leaves the frame
        ax.set(xlabel="tilt (°)", ylabel="error (nm)", ylim=(-bound, bound))

    def write(self, folder: Path) -> None:
        """Write the figure and a table of all tilts into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_table(folder / TABLE, COLUMNS, self._table())
        self.draw().savefig(folder / FIGURE, dpi=150)

    def _table(self) -> Iterator[list[object]]:
        nm = np.column_stack(
            [self.log.shift, self.filter.error, self.filter.sigma, self.rule.error]
        )
        for k, angle in enumerate(self.log.angle):
            numbers = [np.rad2deg(angle), self.log.time[k], *(nm[k] / ANGSTROM_PER_NM)]
            rounded = [round(float(v), 4) if np.isfinite(v) else None for v in numbers]
            yield [*rounded, int(self.filter.lost[k])]

    def _steps(self) -> Float[np.ndarray, "step 2"]:
        """Shifts from tilt to tilt of either branch [Å]."""
        log = self.log
        sides = [log.shift[(log.branch == side) | (log.branch == 0)] for side in (1, -1)]
        return np.concatenate([np.diff(side, axis=0) for side in sides])

    def _losses(self) -> str:
        if not self.filter.lost.any():
            return "never"
        first = np.flatnonzero(self.filter.lost)[0]
        return (
            f"{self.filter.lost.sum()} tilts beyond 6σ, the first at "
            f"{np.rad2deg(self.log.angle[first]):.2f}° (tilt {first} of the series)"
        )

    def _of_time(self) -> dict[str, str]:
        time = self.log.time
        kept = np.isfinite(time) & ~self.filter.lost
        if kept.sum() < 3 or np.ptp(time[kept]) == 0:
            return {}
        per_second, _, low, high = theilslopes(self.log.shift[kept, 0], time[kept])
        drift, low, high = np.array([per_second, low, high]) * 60 / ANGSTROM_PER_NM
        return {
            "time": f"{(np.nanmax(time) - np.nanmin(time)) / 60:.1f} min, "
            f"{np.nanmedian(np.diff(time)):.0f} s a tilt",
            "drift along the axis": f"{drift:.2f} nm/min (95 %: {low:.2f} to {high:.2f})",
        }

    def _of_alignment(self) -> dict[str, str]:
        residual = self.log.residual
        if not np.isfinite(residual).all():
            return {}
        size = np.hypot(*residual.T)[1:]
        return {"shift left for the alignment": _spread(size)}


def _spread(values: Float[np.ndarray, " _"]) -> str:
    """Median, ninth decile and maximum of lengths [Å]."""
    size = np.abs(values) / ANGSTROM_PER_NM
    return (
        f"median {np.median(size):.1f}, p90 {np.percentile(size, 90):.1f}, max {size.max():.1f} nm"
    )


def _errors(replay: LogReplay, kept: np.ndarray) -> str:
    error = np.abs(replay.error[kept][1:]) / ANGSTROM_PER_NM
    along, across = np.percentile(error, [50, 90], axis=0).T
    return (
        f"median {along[0]:.1f}, p90 {along[1]:.1f} nm; "
        f"median {across[0]:.1f}, p90 {across[1]:.1f} nm"
    )


def _height(replay: LogReplay) -> str:
    height = replay.height / ANGSTROM_PER_UM
    return f"{height[-1]:.2f} µm at the end, at most {np.nanmax(np.abs(height)):.2f} µm"
