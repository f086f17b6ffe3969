"""Measured counts, checked and cleaned, read on demand."""

import math
import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Num

from .. import viewing
from ..physics.grids import Grid
from ..physics.types import Numbers
from .bad_pixels import (
    SATURATED,
    bad_pixels,
    dead_pixels,
    describe_pixels,
    electrons,
    saturated_fraction,
)
from .bad_shots import (
    MAX_LEFT_OUT,
    far_positions,
    is_usable,
    repeated_patterns,
    unusable_shots,
    wild_doses,
)
from .batch import Rows
from .checks import (
    checked_mask,
    checked_probe,
    checked_tilts,
    of_view,
    require_counts,
    require_placed,
    require_scan,
)
from .first_pass import BLOCK, first_pass
from .frame import origin_of, require_near_axis, spacing, warn_of_rounding
from .layout import SomeRows, by_view, per_view, without_masks
from .numbers import numbers
from .patterns import AsSeen, Chosen, Patterns, read_by
from .pixel_statistics import PixelStatistics, noise_over_mean, pixel_statistics
from .process_shard import ALONE, ProcessShard
from .spikes import single_spikes, spike_limits

SAMPLE = 256  # patterns in the sample for defective pixels
SAMPLE_PIXELS = 2**24  # pixels in this sample
MIN_NOISE = 0.3  # variance over mean of counts, below which patterns were calculated
MAX_SATURATED = 0.3  # fraction of the bright field, beyond which the data are unusable
IN_MEMORY_BYTES = 4 * 2**30  # datasets up to this size are kept in memory, as integers


@dataclass(eq=False, repr=False)
class Dataset:
    """Counts, their positions, and parameters of the instrument.

    `counts` are `[shot, y, x]`, a scan `[scan y, scan x, y, x]`, a tilt series `[view, shot, y, x]`
    with its `tilts`, or a list over views, with the zero frequency in the centre as a camera shows
    it; any sliceable array is accepted (h5py datasets and memory maps are read block by block,
    NumPy's masked arrays define the mask). `positions` `[…, 2]` are (y, x) of the probe's centre
    in Å. `mask` is True where a pixel counts. `about` holds further parameters, under the names
    of the native format (`semiangle_mrad`, `defocus_angstrom` …).

    `positions` far from zero, as stages report them, are stored relative to their middle: `frame`
    (y, x) [Å] is the position of their zero in the original frame; a given `frame` is used
    unchanged. A tilt series keeps its frame, in which the tilt axis passes through zero.

    The constructor reads every pattern once, each of several processes a separate part
    (`sharing`). Negative counts are clipped to zero and pixels outside the mask zeroed. Defective
    pixels are masked (`data.bad_pixels`), invalid shots left out (`data.bad_shots`), with a
    warning that reports their number and positions; `bad_data="keep"` disables this. `shots` are
    the numbers of the remaining shots. Raises ValueError for misshaped arrays, NaN inside the
    mask, no counts, a mask that excludes all pixels, and positions or tilts that cannot be in Å
    or radians.
    """

    counts: Any
    positions: Any
    grid: Grid
    mask: np.ndarray | None = None
    tilts: np.ndarray | None = None  # rad, one for each view
    probe_guess: np.ndarray | None = None  # [y, x] or [mode, y, x], centre at [N//2, N//2]
    about: dict[str, Any] = field(default_factory=dict)
    sharing: InitVar[ProcessShard] = ALONE
    frame: Any = None  # (y, x) [Å], zero of `positions` in the file's frame
    bad_data: Literal["leave_out", "keep"] = "leave_out"  # treatment of invalid pixels and shots

    def __post_init__(self, sharing: ProcessShard):
        one_scan = self.tilts is None
        self.counts, hidden = without_masks(by_view(self.counts, 3, "counts", one_scan))
        self._camera = list(self.counts)  # patterns as stored, of the shots that are left
        given = [p[:] for p in by_view(self.positions, 2, "positions", one_scan)]
        self.positions = [numbers(p, "positions", float) for p in given]
        self._first: np.ndarray | None = None
        require_scan(self.counts, self.positions, self.grid)
        self.shots = [np.arange(len(p)) for p in self.positions]
        self.tilts = None if self.tilts is None else checked_tilts(self.tilts, self.n_views)
        self.mask = None if self.mask is None else checked_mask(self.mask, self.grid)
        if self.probe_guess is not None:
            self.probe_guess = checked_probe(self.probe_guess, self.grid)
        if hidden is not None:
            self.mask = self._visible() & ~hidden
        checked = self.bad_data == "keep" or self._checked()
        if not checked:
            self._mask(bad_pixels(self.sample, self._visible()))
        self._count_from_frame(max(map(spacing, given)))
        self._clean = read_by(self.counts, self.mask, IN_MEMORY_BYTES)
        self._look(sharing, None if checked else spike_limits(self.valid_sample))
        if not checked:
            self._leave_out_bad_views()
            total = np.fft.fftshift(np.sum(self._total, 0))
            dead = dead_pixels(electrons(total, sum(self.n_shots), self.sample), self._visible())
            self._mask({"dead, without a count in all patterns": dead} if dead.any() else {})
            self._leave_out_bad_shots()
        require_placed(self.positions)
        require_counts(self._dose)

    def show(self) -> Any:
        """Figure of the mean pattern."""
        return viewing.figures().mean_pattern(self)

    def __repr__(self) -> str:
        return viewing.text_of(self, "data")  # as printed by `jaxptycho inspect`

    def _repr_html_(self) -> str:
        return viewing.html_table(self, "data")

    def _checked(self) -> bool:
        """True for patterns whose bad pixels and shots were left out before."""
        return any(getattr(c, "checked", False) for c in self.counts)

    @property
    def n_views(self) -> int:
        """Number of views."""
        return len(self.counts)

    @property
    def n_shots(self) -> list[int]:
        """Number of shots of every view."""
        return [len(p) for p in self.positions]

    def dose(self, view: int = 0) -> Float[np.ndarray, " shot"]:
        """Sum of the counts of every shot."""
        return self._sums()[0][view]

    def mean_pattern(self) -> Float[np.ndarray, "y x"]:
        """Mean counts over all shots and views, zero frequency in the centre."""
        return np.fft.fftshift(np.sum(self._sums()[1], 0)) / sum(self.n_shots)

    @cached_property
    def sample(self) -> PixelStatistics:
        """Sums of every pixel over `raw_sample`."""
        return pixel_statistics(self.raw_sample())

    @property
    def valid_sample(self) -> PixelStatistics:
        """The same sums, zero for pixels that are masked."""
        return self.sample.within(self._visible())

    def raw_sample(self) -> Iterator[Num[np.ndarray, "b y x"]]:
        """Blocks of up to 256 patterns, spread over all shots, as stored by the camera."""
        count = np.clip(SAMPLE_PIXELS // math.prod(self.grid.shape), 16, SAMPLE)
        each = max(1, int(count) // self.n_views)
        for counts, n in zip(self._camera, self.n_shots, strict=True):
            chosen = np.sort(np.random.default_rng(n).permutation(n)[:each])
            for start in range(0, len(chosen), BLOCK):
                yield np.asarray(counts[chosen[start : start + BLOCK]])

    @property
    def kinds(self) -> list[np.dtype]:
        """Data types of the patterns of every view."""
        return [patterns.dtype for patterns in self._clean]

    def patterns(self, view: int, shots: Numbers) -> Num[np.ndarray, "b y x"]:
        """Counts of selected shots for losses: clean, zero frequency in the corner."""
        return self._clean[view][shots]

    def counts_of(self, view: int, shots: Numbers) -> Num[np.ndarray, "b y x"] | Rows:
        """Counts of a batch: the patterns of its shots, or their rows in a table (`indexed`)."""
        if self._first is None:
            return self.patterns(view, shots)
        return Rows((self._first[view] + shots).astype(np.int32))

    def indexed(self) -> "Dataset":
        """The same measurement, whose batches refer to rows of a table of all patterns."""
        other = copy(self)
        other._first = np.cumsum([0, *self.n_shots])
        return other

    def view(self, number: int) -> "Dataset":
        """The measurement of a single view."""
        other = copy(self)
        known = ("_dose", "_total") if self._total else ()
        for name in ("counts", "positions", "shots", "_clean", "_camera", *known):
            setattr(other, name, [getattr(self, name)[number]])
        other.tilts = None if self.tilts is None else np.asarray(self.tilts)[[number]]
        other._first = None
        other.about = dict(self.about)
        other.__dict__.pop("sample", None)
        return other

    def subset(self, shots: Sequence | np.ndarray, sharing: ProcessShard = ALONE) -> "Dataset":
        """The same measurement with only `shots` (of the single view, or a list over views)."""
        chosen = [np.sort(s) for s in per_view(shots)]
        some = [Chosen(clean, s) for clean, s in zip(self._clean, chosen, strict=True)]
        counts = [AsSeen(clean, self.grid.shape, self.mask) for clean in some]
        positions = [p[s] for p, s in zip(self.positions, chosen, strict=True)]
        extras = self.mask, self.tilts, self.probe_guess, dict(self.about)
        other = Dataset(counts, positions, self.grid, *extras, sharing, self.frame)
        other.shots = [own[s] for own, s in zip(self.shots, chosen, strict=True)]
        return other

    def derived(
        self,
        counts: list,
        *,
        grid: Grid | None = None,
        mask: np.ndarray | None = None,
        probe_guess: np.ndarray | None = None,
        shots: Sequence[np.ndarray] | None = None,
    ) -> "Dataset":
        """The same measurement with other `counts` of its views, none of which is read yet.

        They are made of `clean` patterns, on `grid` and with `mask`. `shots` are those that are
        left of every view, all by default.
        """
        other = copy(self)
        other.counts = other._camera = counts
        other.grid = self.grid if grid is None else grid
        other.mask = mask
        other.probe_guess = probe_guess
        other.about = dict(self.about)
        if shots is not None:
            other.positions = [p[s] for p, s in zip(self.positions, shots, strict=True)]
            other.shots = [own[s] for own, s in zip(self.shots, shots, strict=True)]
        in_memory = all(patterns.in_memory for patterns in self._clean)  # not twice
        other._clean = read_by(counts, mask, 0 if in_memory else IN_MEMORY_BYTES)
        other._first = None
        other._dose, other._total = [], []  # read when they are asked for
        other.__dict__.pop("sample", None)
        return other

    def clean(self, view: int) -> Patterns | Chosen:
        """Clean patterns of a view, read when they are indexed."""
        return self._clean[view]

    def _sums(self) -> tuple[list, list]:
        """Counts of every shot, and of every pixel, of all views."""
        if not self._total:
            self._look(ALONE)
        return self._dose, self._total

    def _count_from_frame(self, rounding: float):
        """Subtract `frame` in double precision; `rounding` [Å] is that of the originals."""
        pixel = min(self.grid.pixel)
        warn_of_rounding("positions", rounding, pixel)
        if self.tilts is not None:
            require_near_axis(self.positions, pixel)
        if self.frame is None:
            window = np.multiply(self.grid.shape, self.grid.pixel)
            self.frame = (0.0, 0.0) if self.tilts is not None else origin_of(self.positions, window)
            self.positions = [p - self.frame for p in self.positions]
        y, x = self.frame
        self.frame = float(y), float(x)

    def _where(self, view: int) -> str:
        return of_view(view, self.n_views)

    def _look(self, sharing: ProcessShard, limits: np.ndarray | None = None):
        """Read this process's part of the patterns, and combine the findings of all processes."""
        found = first_pass(self._clean, self.n_shots, self.grid.shape, sharing, limits)
        clipped = found.clipped
        self._dose = found.dose
        self._total = found.total
        self._marks = list(zip(found.spikes, found.torn, strict=True))
        if clipped:
            warnings.warn(
                f"{clipped} negative counts, as dark subtraction leaves them, were clipped to zero",
                stacklevel=4,
            )

    def _mask(self, found: dict[str, np.ndarray]):
        """Mask pixels [y, x] by kind of defect, with a warning."""
        if not found:
            return
        left = self._visible() & ~np.any(list(found.values()), axis=0)
        what = "; ".join(f"{describe_pixels(pixels)} {words}" for words, pixels in found.items())
        if SATURATED in found and saturated_fraction(self.sample, found[SATURATED]) > MAX_SATURATED:
            raise ValueError(
                f"the camera is saturated: {what}, most of the bright field; brighter counts are "
                "lost: use a shorter exposure or a file with more bits"
            )
        if not left.any():
            raise ValueError(
                f"no pixel of the detector measures: {what}; check the type and the units of the "
                "counts"
            )
        self.mask = left
        warnings.warn(f'masked {what} (data.bad_data = "keep" leaves them in)', stacklevel=5)

    def _visible(self) -> np.ndarray:
        """Valid pixels [y, x]."""
        return np.ones(self.grid.shape, bool) if self.mask is None else self.mask

    def _leave_out_bad_views(self):
        """Leave unusable views of a tilt series out; two at least are left."""
        views = range(self.n_views)
        good = [view for view in views if is_usable(self._dose[view], self.positions[view])]
        if self.tilts is None or len(good) == self.n_views or len(good) < 2:
            return
        bad = sorted(set(views) - set(good))
        named = ", ".join(f"{view} (tilt {np.rad2deg(self.tilts[view]):.4g}°)" for view in bad)
        warnings.warn(
            f"left out {len(bad)} of {self.n_views} views, without counts or where these or "
            f"positions are not finite: {named}; those after them move up (data.bad_data = "
            '"keep" refuses them)',
            stacklevel=4,
        )
        self.tilts = self.tilts[good]
        for name in ("counts", "_camera", "positions", "shots", "_clean", "_dose", "_total"):
            setattr(self, name, [getattr(self, name)[view] for view in good])
        self._marks = [self._marks[view] for view in good]
        self.__dict__.pop("sample", None)

    def _leave_out_bad_shots(self):
        """Leave out corrupted, lost and repeated patterns, and positions far from the scan."""
        window = max(n * p for n, p in zip(self.grid.shape, self.grid.pixel, strict=True))
        noisy = noise_over_mean(self.valid_sample) > MIN_NOISE
        for view in range(self.n_views):
            broken = unusable_shots(self._dose[view], self.positions[view])
            spikes, torn = (marks[~broken] for marks in self._marks[view])
            if 0 < broken.mean() <= MAX_LEFT_OUT:
                self._leave_out(view, broken, "whose counts or position are not finite")
            dose, positions = self._dose[view], self.positions[view]
            if unusable_shots(dose, positions).any():
                continue
            far = far_positions(positions, window)
            wild = wild_doses(dose, positions) & ~far
            stopped = repeated_patterns(dose, self._clean[view].__getitem__) if noisy else far
            spiked = single_spikes(spikes) & ~wild & ~far
            middle = np.median(dose)
            kinds = (
                (far, "with positions far from the rest of the scan", positions),
                (wild, f"with counts unlike those around them ({middle:.4g} as a rule)", dose),
                (stopped, "that repeat the pattern of the shot before", None),
                (_few(spiked), "with a spike, as a cosmic ray leaves it", None),
                (_few(torn > 0) & noisy, "that are torn, or the other part of a torn one", None),
            )
            left = np.ones(len(dose), bool)
            for bad, why, values in kinds:
                self._leave_out(view, bad[left], why, None if values is None else values[left])
                left &= ~bad

    def _leave_out(self, view: int, bad: np.ndarray, why: str, values: np.ndarray | None = None):
        """Leave `bad` shots of a view out, with a warning that shows their first value."""
        if not bad.any():
            return
        first = int(np.flatnonzero(bad)[0])
        at = "" if values is None else f" at {values[first]}"
        warnings.warn(
            f"left out {bad.sum()} of {len(bad)} shots{self._where(view)} {why} (first: shot "
            f'{self.shots[view][first]}{at}; data.bad_data = "keep" leaves them in)',
            stacklevel=5,
        )
        self._keep_shots(view, ~bad)

    def _keep_shots(self, view: int, good: np.ndarray):
        """Restrict a view to its `good` shots."""
        counted = np.flatnonzero(~good & ~np.isnan(self._dose[view]))
        for start in range(0, len(counted), BLOCK):
            self._total[view] -= self._clean[view][counted[start : start + BLOCK]].sum(
                0, dtype=float
            )
        kept = np.flatnonzero(good)
        chosen = Chosen(self._clean[view], kept)
        self._clean[view], self.counts[view] = chosen, AsSeen(chosen, self.grid.shape, self.mask)
        self._camera[view] = SomeRows(self._camera[view], kept)
        self.positions[view] = self.positions[view][good]
        self.shots[view] = self.shots[view][good]
        self._dose[view] = self._dose[view][good]
        self.__dict__.pop("sample", None)


def _few(bad: np.ndarray) -> np.ndarray:
    """The bad shots, none where they are too many to be left out."""
    return bad if bad.mean() <= MAX_LEFT_OUT else np.zeros_like(bad)
