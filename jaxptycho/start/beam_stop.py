"""Beam stops that let some of the beam through: dark regions with a sharp edge.

The mean of many patterns is nearly the same at opposite frequencies, or else differs by discs that
are brighter than what is around them. A beam stop on its arm is darker than the pixels opposite and
darker than those around, on both of its sides: the dark beside a disc, which may be off the middle
or cut by the camera, is not between bright pixels. One in the middle is opposite to itself; there,
electrons have their direct beam.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay, QhullError

DARKER = 4.0  # times fewer counts than opposite
EDGE = 2.5  # ratio of counts across the edge
SHARP = 0.6  # fraction of the edge
INSIDE = 0.7  # fraction of the region between bright pixels
MIN_ELECTRONS = 100.0  # opposite, or around, in all patterns
FEWEST = 10  # pixels
CENTRAL = 0.3  # of the bright field, above which its middle is not dark
LARGEST = 1 / 16  # of the detector
SQUARE = np.ones((3, 3))


def beam_stop(
    electrons: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"], direct_beam: bool
) -> Bool[np.ndarray, "y x"]:
    """Pixels of `mask` behind a beam stop, from the `electrons` of all patterns.

    With a `direct_beam` the pattern is bright in its middle.
    """
    opposite = _opposite(np.where(mask, electrons, 0))
    darker = mask & (DARKER * electrons < opposite) & (opposite > MIN_ELECTRONS)
    found = np.zeros_like(mask)
    for region in _regions(darker):
        bright = mask & (DARKER * electrons > np.median(opposite[region]))
        if _is_between(region, bright) and _is_sharp(region, electrons, mask):
            found |= region
    if direct_beam:
        found |= _middle(electrons, mask)
    return found


def _opposite(image: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """The image at opposite frequencies, about the middle that makes it most alike."""
    spectrum = np.fft.fft2(np.sqrt(image))
    alike = np.fft.ifft2(spectrum**2).real  # Σ image(r) image(s − r)
    ny, nx = image.shape
    y, x = np.mgrid[:ny, :nx]
    near = (abs(_wrapped(y - ny, ny)) < ny / 4) & (abs(_wrapped(x - nx, nx)) < nx / 4)
    total = np.unravel_index(np.where(near, alike, -np.inf).argmax(), alike.shape)
    return np.roll(image[::-1, ::-1], (int(total[0]) + 1, int(total[1]) + 1), (0, 1))


def _wrapped(away: np.ndarray, n: int) -> np.ndarray:
    return (away + n // 2) % n - n // 2


def _middle(electrons, mask) -> Bool[np.ndarray, "y x"]:
    """A dark region in the middle of the pattern with a sharp edge all around."""
    ny, nx = electrons.shape
    central = electrons[ny // 4 : -(ny // 4), nx // 4 : -(nx // 4)]
    level = float(np.quantile(central, 0.95))
    labels: np.ndarray = ndimage.label(mask & (electrons < CENTRAL * level))[0]  # pyright: ignore
    number = labels[ny // 2, nx // 2]
    region = labels == number
    small = FEWEST <= region.sum() <= LARGEST * region.size
    if number and level > MIN_ELECTRONS and small and _is_sharp(region, electrons, mask):
        return region
    return np.zeros_like(region)


def _regions(pixels: Bool[np.ndarray, "y x"]) -> list[Bool[np.ndarray, "y x"]]:
    labels: np.ndarray = ndimage.label(pixels, SQUARE)[0]  # pyright: ignore
    sizes = np.bincount(labels.ravel())
    return [labels == n for n in range(1, len(sizes)) if sizes[n] >= FEWEST]


def _is_between(region: Bool[np.ndarray, "y x"], bright: Bool[np.ndarray, "y x"]) -> bool:
    """True if most of a region is inside the convex outline of `bright` pixels."""
    try:
        pixels = np.argwhere(bright)
        outline = Delaunay(pixels[ConvexHull(pixels).vertices])  # of all pixels it takes seconds
    except (QhullError, ValueError):  # none, or all on a line
        return False
    return float(np.mean(outline.find_simplex(np.argwhere(region)) >= 0)) > INSIDE


def _is_sharp(region, electrons, mask) -> bool:
    """True if most pixels beside a region are far brighter than those inside."""
    ratios = []
    for axis in (0, 1):
        for step in (1, -1):
            outside = np.roll(region, step, axis) & ~region & mask
            inside = np.roll(electrons, step, axis)
            bright = outside & (electrons > MIN_ELECTRONS / DARKER)
            ratios += list(electrons[bright] / np.maximum(inside[bright], 1))
    return len(ratios) >= FEWEST // 2 and float(np.mean(np.array(ratios) > EDGE)) > SHARP
