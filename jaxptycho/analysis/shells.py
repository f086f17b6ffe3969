"""Rings and shells of Fourier space, and windows for transforms, of images and volumes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft
from scipy.ndimage import distance_transform_edt
from scipy.signal.windows import tukey

from ..physics.types import Numbers

Vector = Sequence[float | int] | np.ndarray
Pixel = float | int | Vector  # Å, one for all axes or one for each
Frequencies = tuple[np.ndarray, ...]  # 1/Å, an open array for each axis
Where = Callable[[Frequencies], np.ndarray]  # weights 0…1 of Fourier pixels, the same for k and −k


class Shells(NamedTuple):
    """Shells of one width around zero frequency, up to Nyquist along the coarsest axis."""

    k: Frequencies
    index: np.ndarray  # shell of every Fourier pixel
    multiplicity: np.ndarray  # 2 where a Fourier pixel also represents its Friedel mate
    frequency: np.ndarray  # 1/Å, middle of every shell

    def sum(self, values: Numbers) -> Float[np.ndarray, " shell"]:
        """Sum of `values` over all Fourier pixels of every shell."""
        values = np.broadcast_to(values * self.multiplicity, self.index.shape)
        return np.bincount(self.index.ravel(), values.ravel(), len(self.frequency) + 1)[:-1]


def shells(shape: Sequence[int], pixel: Pixel, half: bool) -> Shells:
    """Shells of an image; `half` of Fourier space is that of `transform` of real images.

    As wide as the coarsest frequency step. With `half`, sums still include all Fourier pixels.
    """
    pixel = per_axis(pixel, len(shape))
    steps = [fft.fftfreq(n, p) for n, p in zip(shape, pixel, strict=True)]
    multiplicity = np.ones(shape[-1])
    if half:
        steps[-1] = fft.rfftfreq(shape[-1], pixel[-1])
        multiplicity = np.full(len(steps[-1]), 2.0)
        multiplicity[0] = 1.0
        multiplicity[shape[-1] // 2 :] = 1.0 if shape[-1] % 2 == 0 else 2.0
    k = tuple(np.meshgrid(*steps, indexing="ij", sparse=True))
    width = max(1 / (n * p) for n, p in zip(shape, pixel, strict=True))
    count = int(1 / (2 * max(pixel)) / width + 1e-6) + 1
    index = (np.sqrt(sum(step**2 for step in k)) / width + (0.5 + 1e-9)).astype(np.intp)
    return Shells(k, np.minimum(index, count), multiplicity, width * np.arange(count))


def per_axis(lengths: Numbers, dimensions: int, what: str = "pixel") -> tuple[float, ...]:
    """The length along every axis [Å]."""
    each = np.ravel(np.asarray(lengths, float))
    valid = np.isfinite(each).all() and (each > 0).all()
    if len(each) not in (1, dimensions) or not valid:
        raise ValueError(
            f"the {what} is {lengths} Å; give one positive length, or one for each of {dimensions} "
            "axes"
        )
    return tuple(float(length) for length in np.broadcast_to(each, dimensions))


def transform(image: Numbers, half: bool) -> np.ndarray:
    """Fourier transform, zero frequency in the corner; only `half` of it for a real image."""
    return np.asarray(fft.rfftn(image) if half else fft.fftn(image))


def cone(axis: Vector, half_angle: float, edge: float = 0.0) -> Where:
    """Double cone of directions within `half_angle` [rad] of `axis`; in an image a double sector.

    With an `edge` [rad] the weight falls from 1 to 0 as a raised cosine around the half angle.
    """
    axis = np.asarray(axis, float)
    if not np.linalg.norm(axis) > 0:
        raise ValueError(f"a cone requires the direction of its axis; got {axis}")
    axis = axis / np.linalg.norm(axis)

    def weight(k: Frequencies) -> np.ndarray:
        if len(k) != len(axis):
            raise ValueError(
                f"the axis of a cone has {len(axis)} components; the images have {len(k)} "
                "dimensions"
            )
        along = np.abs(sum(a * step for a, step in zip(axis, k, strict=True)))
        length = np.sqrt(sum(step**2 for step in k))
        angle = np.arccos(np.clip(along / np.where(length > 0, length, 1), 0, 1))
        return falling(np.where(length > 0, angle, 0) - half_angle, edge)

    return weight


def wedge(lowest: float, highest: float) -> Where:
    """Frequencies that a tilt series from `lowest` to `highest` [rad] about the y axis measures.

    The view at angle θ measures the plane k_z = k_x tan θ of a volume [z, y, x]; all frequencies
    between the outermost planes are included.
    """
    if not lowest <= highest:
        raise ValueError(
            f"the tilts go from {lowest} to {highest} rad; give the lowest angle first"
        )
    middle = (lowest + highest) / 2
    reach = (highest - lowest) / 2

    def weight(k: Frequencies) -> np.ndarray:
        if len(k) != 3:
            raise ValueError(
                f"a wedge is defined in a volume (z, y, x); the images have {len(k)} dimensions"
            )
        kz, _, kx = k
        angle = np.arctan2(kz, kx) - middle
        angle = (angle + np.pi / 2) % np.pi - np.pi / 2
        return (np.abs(angle) <= reach + 1e-9) | ((kx == 0) & (kz == 0))

    return weight


def outside(where: Where) -> Where:
    """Complement of `where`."""
    return lambda k: 1.0 - where(k)


def all_frequencies(k: Frequencies) -> np.ndarray:
    """All of Fourier space."""
    return np.ones((1,) * len(k))


def taper(shape: Sequence[int], border: float = 0.15) -> np.ndarray:
    """Window of 1 that falls to zero over the fraction `border` of each side (Tukey)."""
    sides = np.meshgrid(*(tukey(n, 2 * border) for n in shape), indexing="ij", sparse=True)
    return np.prod(np.broadcast_arrays(*sides), axis=0)


def soft_mask(support: Bool[np.ndarray, "..."], edge: float, pixel: Pixel = 1.0) -> np.ndarray:
    """Mask of 1 inside `support`, falling to zero as a raised cosine over `edge` outside.

    `edge` in the units of `pixel`: Å, or pixels by default.
    """
    if not support.any():
        raise ValueError("the support of a mask is empty; it is True where the object is")
    distance = np.asarray(distance_transform_edt(~support, sampling=per_axis(pixel, support.ndim)))
    return falling(distance - edge / 2, edge)


def soft_inside(inside: Bool[np.ndarray, "..."], border: float = 0.15) -> np.ndarray:
    """Window that rises from 0 at the edge of a region to 1 as a raised cosine.

    Over the fraction `border` of the region's shortest side, also at the edges of the image.
    """
    if not inside.any():
        raise ValueError("got an empty region for a window; it is True where the images are known")
    places = np.argwhere(inside)
    width = border * (np.ptp(places, axis=0).min() + 1)
    depth = np.asarray(distance_transform_edt(np.pad(inside, 1)))[(slice(1, -1),) * inside.ndim]
    return np.where(inside, 1 - falling(depth - width / 2, width), 0.0)


def windowed(image: Numbers, window: Any) -> np.ndarray:
    """Image minus its mean under the window, times the window."""
    return (image - np.sum(image * window) / np.sum(window)) * window


def tapered(image: Numbers, border: float = 0.15) -> np.ndarray:
    """Image minus its mean, falling to zero over the fraction `border` of each side."""
    return windowed(image, taper(np.shape(image), border))


def filling(window: Any) -> float:
    """Fraction (Σw²)² / (N Σw⁴) of Fourier pixels that are independent under a window.

    A window correlates neighbouring Fourier pixels; this fraction of N is independent for white
    noise (the participation ratio of the window's power). It is larger in a thin ring, whose
    pixels correlate with those of other rings.
    """
    return float(np.sum(window**2) ** 2 / (np.size(window) * np.sum(window**4)))


def falling(distance: Any, width: float) -> np.ndarray:
    """Raised cosine from 1 to 0 of this width around distance zero, a step if it is zero."""
    if width == 0:
        return np.asarray(distance <= 0, float)
    return 0.5 * (1 - np.sin(np.pi * np.clip(distance / width, -0.5, 0.5)))
