"""Detection of defective camera pixels from the patterns.

Flagged: the largest value of the type, or a constant negative one, as cameras mark dead pixels and
gaps between chips. Stuck: a constant value where the neighbours vary. Hot: far above all
neighbours. Dead: always zero between pixels that are illuminated on both sides. A sound pattern
has none of these: its features are as wide as the bright-field disc or a speckle, and its dark
regions are not narrow straight stripes.
"""

import numpy as np
import scipy
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from .dead_chips import ILLUMINATED, dead_chips
from .hot_clusters import hot_clusters
from .pixel_statistics import PixelStatistics, steady

MIN_FLAGGED = 0.5  # fraction of the patterns in which a pixel has its flag
STUCK_SHOTS = 16  # minimum number of patterns to distinguish a stuck pixel from a steady one
MIN_VARYING = 0.85  # fraction of the neighbours of a stuck region that vary
MAX_STUCK = 25  # pixels of such a region; a larger one may be saturated, or calculated
STUCK_WIDTH = 2  # pixels of a line of any length
FLAGS = 0.25  # largest fraction of flagged pixels; more are dark pixels after subtraction
HOT_RATIO = 10.0  # over the fourth brightest of 24 neighbours; a measured central beam has 6
HOT_COUNTS = 50  # counts of a hot pixel if there are few patterns
BRIGHT = 0.2  # of the largest value, around a saturated pixel
ROUND = 20  # pixels, from which a round region of flags is a bright-field disc
SATURATED = "saturated in most patterns"
GAP_WIDTH = 8  # pixels, widest gap between two chips that is distinguished from a dark region
COMPACT = 3  # pixels, longer side of a cluster of dead pixels that is not a stripe


def bad_pixels(seen: PixelStatistics, mask: Bool[np.ndarray, "y x"]) -> dict[str, np.ndarray]:
    """Defective pixels [y, x] of `mask`, by kind of defect (see the module)."""
    mean = seen.mean
    flagged = mask & (seen.flagged >= MIN_FLAGGED * seen.shots)
    negative = mask & (mean < 0) & (seen.changed == 0) & (seen.shots > 1)
    if negative.mean() > FLAGS:
        negative = np.zeros_like(mask)
    left = mask & ~flagged & ~negative
    lines = _hot_lines(seen, left)
    left &= ~lines
    stuck = left & _stuck(seen, left)
    hot = left & ~stuck & _hot(seen, left & ~stuck)
    clusters = hot_clusters(seen, left & ~stuck & ~hot)
    saturated = _saturated(seen, flagged, mask & ~flagged)
    found = {
        "flagged by the largest value of their type, or by NaN": flagged & ~saturated,
        SATURATED: saturated,
        "at the same negative value in every pattern": negative,
        "stuck at one value": stuck,
        "hot, far above their neighbours": hot | lines | clusters.bright,
        "far noisier than their neighbours": clusters.noisy,
    }
    return {what: pixels for what, pixels in found.items() if pixels.any()}


def _saturated(seen: PixelStatistics, flagged, valid) -> Bool[np.ndarray, "y x"]:
    """Flagged regions with a border nearly as bright, or round ones in counts of the same order."""
    labels: np.ndarray = scipy.ndimage.label(flagged, np.ones((3, 3)))[0]  # pyright: ignore
    found = np.zeros_like(flagged)
    brightest = np.where(valid, seen.largest, 0).max(initial=0)
    for number, place in enumerate(scipy.ndimage.find_objects(labels), 1):
        region = labels == number
        level = seen.largest[region].max()
        border = scipy.ndimage.binary_dilation(region, np.ones((3, 3))) & valid
        around = (seen.total[border] / seen.shots).max(initial=0)
        filled = region[place].mean()
        round_one = region.sum() >= ROUND and 0.5 < filled < 1 and brightest > level / 20
        found |= region & (level > 0) & (bool(around > BRIGHT * level) | bool(round_one))
    return found


def saturated_fraction(seen: PixelStatistics, saturated: Bool[np.ndarray, "y x"]) -> float:
    """Saturated pixels as a fraction of all pixels that reach `BRIGHT` of that value on average."""
    level = seen.largest[saturated].max()
    return float(saturated.sum() / (saturated | (seen.total > BRIGHT * level * seen.shots)).sum())


def _stuck(seen: PixelStatistics, valid) -> Bool[np.ndarray, "y x"]:
    """Small regions and lines of one value other than zero, around which pixels vary as counts."""
    found = np.zeros_like(valid)
    if seen.shots < STUCK_SHOTS or not (seen.changed[valid] > 0).any():
        return found
    mean = seen.mean
    variance = np.maximum(seen.squares / seen.shots - mean**2, 0)
    noisy = valid & ((mean == 0) | (variance > 0.3 * np.abs(mean)))
    constant = valid & (seen.changed == 0) & (mean != 0)
    labels: np.ndarray = scipy.ndimage.label(constant, np.ones((3, 3)))[0]  # pyright: ignore
    for number, place in enumerate(scipy.ndimage.find_objects(labels), 1):
        around = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in place)
        region = labels[around] == number
        ring = scipy.ndimage.binary_dilation(region, np.ones((3, 3))) & ~region & valid[around]
        small = region.sum() <= MAX_STUCK or min(constant[place].shape) <= STUCK_WIDTH
        if small and ring.any() and noisy[around][ring].mean() > MIN_VARYING:
            found[around] |= region
    return found


def _hot_lines(seen: PixelStatistics, valid) -> Bool[np.ndarray, "y x"]:
    """Rows and columns far above both neighbours by the same amount along all of their length.

    Streaks of a pattern fall off from its middle.
    """
    found = np.zeros_like(valid)
    total = np.where(valid, np.maximum(seen.total, 0), np.nan)
    for lines, out in ((total, found), (total.T, found.T)):
        padded = np.pad(lines, ((1, 1), (0, 0)), constant_values=np.nan)
        around = np.fmax(padded[:-2], padded[2:])
        excess = lines - around
        known = np.isfinite(excess)
        for number in np.flatnonzero(known.mean(1) > MIN_VARYING):
            here = excess[number][known[number]]
            low, middle, high = np.quantile(here, [0.1, 0.5, 0.9])
            dim = np.median(around[number][known[number]])
            if low > 0.5 * high and middle > HOT_RATIO * dim + HOT_COUNTS:
                out[number] = True
    return found & valid


def _hot(seen: PixelStatistics, valid) -> Bool[np.ndarray, "y x"]:
    """Pixels far above the fourth brightest of their 24 neighbours."""
    total = np.where(valid, np.maximum(seen.total, 0), np.nan)
    ranked = -np.sort(-np.nan_to_num(_neighbours(total, 2), nan=0.0), axis=0)
    enough = np.isfinite(total).sum() > 25
    least = HOT_COUNTS if seen.shots < STUCK_SHOTS else 0
    return enough & (np.nan_to_num(total) > HOT_RATIO * ranked[3] + least) & steady(seen)


def _neighbours(image: ArrayLike, reach: int) -> Float[np.ndarray, "n y x"]:
    """Values of all pixels up to `reach` pixels away, NaN beyond the edge."""
    image = np.asarray(image, float)
    padded = np.pad(image, reach, constant_values=np.nan)
    height, width = image.shape
    steps = range(2 * reach + 1)
    return np.stack(
        [
            padded[y : y + height, x : x + width]
            for y in steps
            for x in steps
            if (y, x) != (reach, reach)
        ]
    )


def electrons(
    total: Float[np.ndarray, "y x"], shots: int, seen: PixelStatistics
) -> Float[np.ndarray, "y x"]:
    """Lower bound on the electrons in the `total` counts of `shots` shots.

    mean² · shots / variance, for any number of counts per electron: at low dose the variance is
    the mean times that number; if the specimen varies the counts more, the bound is too small.
    """
    mean = total / shots
    variance = np.maximum(seen.squares / seen.shots - (seen.total / seen.shots) ** 2, 0)
    return np.where(mean > 0, mean**2 * shots / np.maximum(variance, 1e-12 * mean**2 + 1e-300), 0)


def dead_pixels(total: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]) -> np.ndarray:
    """Pixels [y, x] of `mask` that are always zero between illuminated ones.

    `total` are the electrons of all patterns. A dead pixel or gap is a rectangle of zeros, up to
    `GAP_WIDTH` wide, with at least `ILLUMINATED` electrons in the pixels next to it on both sides;
    a stripe extends along its axis as far as it is dark. Dark regions between the discs of a
    diffraction pattern differ: they have curved sides, or fall off towards the gap.
    """
    dark = mask & (total == 0)
    if not dark.any():
        return dark
    across = [
        _between_illuminated(dark.T, total.T, mask.T).T,
        _between_illuminated(dark, total, mask),
    ]
    found = np.zeros_like(dark)
    for axis, candidates in enumerate(across):
        labels: np.ndarray = scipy.ndimage.label(candidates)[0]  # pyright: ignore
        for number, place in enumerate(scipy.ndimage.find_objects(labels), 1):
            if not (labels[place] == number).all():
                continue  # not a rectangle
            height, width = (s.stop - s.start for s in place)
            length, breadth = (width, height) if axis == 0 else (height, width)
            if max(height, width) <= COMPACT:
                found[place] |= _enclosed(place, total, dark, mask)
            elif length >= 3 * breadth and _sharp(place, total, axis):
                found[_extended(place, dark, axis)] = True
    return found | dead_chips(total, mask)


def _between_illuminated(dark, total, mask) -> np.ndarray:
    """Dark pixels in runs along each row with illuminated pixels at both ends."""
    found = np.zeros_like(dark)
    bright = mask & (total >= ILLUMINATED)
    for row, (zeros, bright_here) in enumerate(zip(dark, bright, strict=True)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], zeros.astype(int), [0]])))
        for start, stop in edges.reshape(-1, 2):
            inside = start > 0 and stop < len(zeros)
            if (
                inside
                and stop - start <= GAP_WIDTH
                and bright_here[start - 1]
                and bright_here[stop]
            ):
                found[row, start:stop] = True
    return found


def _enclosed(place, total, dark, mask) -> bool:
    """True if all pixels around a small rectangle are illuminated."""
    y, x = (slice(max(s.start - 1, 0), s.stop + 1) for s in place)
    ring = np.ones(total[y, x].shape, bool)
    ring[place[0].start - y.start :, place[1].start - x.start :][
        : place[0].stop - place[0].start, : place[1].stop - place[1].start
    ] = False
    ring &= mask[y, x]
    return bool(ring.any() and (total[y, x][ring] >= ILLUMINATED).all())


def _sharp(place, total, axis: int) -> bool:
    """True unless the counts beside a stripe fall off towards it on both sides.

    The chord of a disc shortens by √3 from three pixels to one pixel from its rim; a gap has no
    such effect.
    """
    image, (rows, columns) = (total, place) if axis else (total.T, place[::-1])
    sums = image[rows].sum(0)
    before = sums[: columns.start][::-1][:3]
    after = sums[columns.stop :][:3]
    falls = [len(side) == 3 and side[0] < 0.7 * side[2] for side in (before, after)]
    return not all(falls)


def _extended(place, dark, axis: int) -> tuple[slice, slice]:
    """The stripe, extended along its axis as far as it is dark over its full width."""
    image, (rows, columns) = (dark, place) if axis else (dark.T, place[::-1])
    empty = image[:, columns].all(1)
    start, stop = rows.start, rows.stop
    while start > 0 and empty[start - 1]:
        start -= 1
    while stop < len(empty) and empty[stop]:
        stop += 1
    longer = slice(start, stop)
    return (longer, columns) if axis else (columns, longer)


def describe_pixels(pixels: Bool[np.ndarray, "y x"]) -> str:
    """Number and position of pixels: rows, columns or the first of them."""
    places = np.argwhere(pixels)
    rows, columns = np.unique(places[:, 0]), np.unique(places[:, 1])
    count = f"{len(places)} pixel{'s' if len(places) > 1 else ''}"
    if len(places) == 1:
        return f"1 pixel ([{places[0, 0]}, {places[0, 1]}])"
    for name, lines, other in (("column", columns, rows), ("row", rows, columns)):
        if len(places) == len(lines) * len(other) and len(other) > 3 * len(lines):
            span = f"{lines[0]}" if len(lines) == 1 else f"{lines[0]} to {lines[-1]}"
            return f"{count} ({name}{'s' if len(lines) > 1 else ''} {span})"
    return f"{count} (first: [{places[0, 0]}, {places[0, 1]}])"
