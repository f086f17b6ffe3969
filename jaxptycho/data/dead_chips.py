"""Detection of dead chips of a camera: rectangles without counts that reach into its corners."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

ILLUMINATED = 30  # electrons of all patterns beside a dead pixel: e⁻³⁰ by chance
MIN_EDGE = 6  # illuminated pixels along the edges of a dead chip
FALL = 0.7  # of the counts, from three pixels beside an edge to one: a disc's rim falls by √3
MIRRORED = 0.05  # of all electrons, in the mirror image of a dead chip


def dead_chips(
    total: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> Bool[np.ndarray, "y x"]:
    """Pixels [y, x] of `mask` in dead chips.

    `total` are the electrons of all patterns. A dead chip is a rectangle of zeros in a corner, up
    to a half of the camera, whose straight edges cut illuminated pixels off sharply, and whose
    mirror image through the middle is illuminated: dark regions around a disc have neither.
    """
    found = np.zeros_like(mask)
    ny, nx = total.shape
    mirrored = np.roll(total[::-1, ::-1], ((ny + 1) % 2, (nx + 1) % 2), (0, 1))
    for step_y in (1, -1):
        for step_x in (1, -1):
            view = np.s_[::step_y, ::step_x]
            for height, width in _empty_corners(total[view]):
                corner = np.s_[:height, :width]
                opposite = mirrored[view][corner].sum()
                if opposite > MIRRORED * total.sum() and _cut_off(total[view], height, width):
                    found[view][corner] = True
    return found & mask


def _empty_corners(total: Float[np.ndarray, "y x"]) -> Iterator[tuple[int, int]]:
    """Heights and widths of the largest rectangles without counts at the corner [0, 0]."""
    empty = total == 0
    leading = np.where(empty.all(1), total.shape[1], np.argmin(empty, axis=1))
    widths = np.append(np.minimum.accumulate(leading), 0)
    for height in 1 + np.flatnonzero(np.diff(widths) < 0):
        yield int(height), int(widths[height - 1])


def _cut_off(total: Float[np.ndarray, "y x"], height: int, width: int) -> bool:
    """True if the edges of the rectangle at the corner [0, 0] cut illuminated pixels off."""
    beside = [total[height:, :width], total[:height, width:].T]
    edges = [strip[:3] for strip in beside if len(strip)]
    illuminated = sum(int((strip[0] >= ILLUMINATED).sum()) for strip in edges)
    sharp = [len(strip) == 3 and strip[0].sum() >= FALL * strip[2].sum() for strip in edges]
    return illuminated >= MIN_EDGE and all(sharp)
