"""Part of a measurement, lazily: windows, bins and margins of the detector, a region of the scan.

Every function returns the same measurement with other patterns, which are read when they are asked
for, so that functions can be combined. The zero frequency is at pixel [n//2, n//2] of the patterns
before and after. Mask, guess of the probe, and the pixel of the object 1/(n·dk) follow.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num, Shaped

from ..physics.grids import Grid
from .checks import checked_mask, of_view
from .dataset import Dataset
from .patterns import AsSeen, Chosen, Patterns

Change = Callable[[np.ndarray], np.ndarray]  # of images [..., y, x]


def with_windows(
    data: Dataset,
    region: Sequence[Sequence[float]] | None = None,
    crop: Sequence[int] | None = None,
    bins: int | None = None,
    pad: Sequence[int] | None = None,
) -> Dataset:
    """`crop_scan`, `crop_detector`, `bin_detector` and `pad_detector`, as far as given."""
    data = data if region is None else crop_scan(data, region)
    data = data if crop is None else crop_detector(data, crop)
    data = data if bins is None else bin_detector(data, bins)
    return data if pad is None else pad_detector(data, pad)


def crop_scan(data: Dataset, region: Sequence[Sequence[float]]) -> Dataset:
    """The shots within a region [[y, x], [y, x]] [Å], lowest and highest corner, of every view.

    In the frame of the file, edges included. Raises ValueError for a region without shots.
    """
    corners = np.asarray(region, float)
    if corners.shape != (2, 2) or not np.isfinite(corners).all() or (corners[0] > corners[1]).any():
        raise ValueError(
            f"region = {region}; the lowest and the highest corner [[y, x], [y, x]] in Å are "
            "required"
        )
    inside = [
        np.flatnonzero(((p + data.frame >= corners[0]) & (p + data.frame <= corners[1])).all(1))
        for p in data.positions
    ]
    for view, (chosen, places) in enumerate(zip(inside, data.positions, strict=True)):
        if not len(chosen):
            (y0, x0), (y1, x1) = ((end(places, 0) + data.frame) for end in (np.min, np.max))
            raise ValueError(
                f"region = {region} holds none of the {len(places)} shots"
                f"{of_view(view, data.n_views)}, which extend over {y0:.5g} to {y1:.5g} Å (y) and "
                f"{x0:.5g} to {x1:.5g} Å (x); give a region that overlaps with them"
            )
    counts = [
        AsSeen(Chosen(data.clean(view), chosen), data.grid.shape, data.mask)
        for view, chosen in enumerate(inside)
    ]
    return data.derived(counts, mask=data.mask, probe_guess=data.probe_guess, shots=inside)


def crop_detector(data: Dataset, window: Sequence[int]) -> Dataset:
    """The pixels of a window: [height, width] around the zero frequency, or [first row, first
    column, row after the last, column after the last].

    The middle of a window of the second form becomes the zero frequency, which tilts the beam as
    a disc off the middle does (`start.descan`). Raises ValueError for a window beyond the patterns.
    """
    rows, columns = _window(window, data.grid.shape)
    height, width = rows.stop - rows.start, columns.stop - columns.start

    def cropped(images: np.ndarray) -> np.ndarray:
        return images[..., rows, columns]

    probe = None if data.probe_guess is None else _of_spectrum(data.probe_guess, cropped)
    mask = None if data.mask is None else cropped(data.mask)
    return _changed(data, cropped, (height, width), data.grid.dk, mask, probe)


def bin_detector(data: Dataset, factor: int) -> Dataset:
    """Sums of `factor`² neighbouring pixels, from the first row and column on.

    A sum counts where all of its pixels do. The middle of the bin of the zero frequency differs
    from it by less than half a bin, which tilts the beam. Raises ValueError where `factor` does
    not divide the patterns.
    """
    ny, nx = data.grid.shape
    if factor < 1 or ny % factor or nx % factor:
        raise ValueError(_undivided(factor, (ny, nx)))
    shape = (ny // factor, nx // factor)
    kind = {"u": np.uint32, "i": np.int32}

    def blocks(images: np.ndarray) -> np.ndarray:
        return images.reshape(*images.shape[:-2], shape[0], factor, shape[1], factor)

    def binned(images: np.ndarray) -> np.ndarray:
        return blocks(images).sum((-3, -1), dtype=kind.get(images.dtype.kind, np.float32))

    mask = None if data.mask is None else np.asarray(blocks(data.mask).all((-3, -1)))
    probe = None if data.probe_guess is None else data.probe_guess[..., *_window(shape, (ny, nx))]
    dk = (factor * data.grid.dk[0], factor * data.grid.dk[1])
    return _changed(data, binned, shape, dk, mask, probe)


def pad_detector(data: Dataset, shape: Sequence[int]) -> Dataset:
    """Patterns of `shape` pixels, those beyond the camera masked; the object's pixel is finer."""
    if len(shape) != 2 or shape[0] < data.grid.shape[0] or shape[1] < data.grid.shape[1]:
        raise ValueError(
            f"pad = {list(shape)}: the patterns have {_by(data.grid.shape)} pixels already; give a "
            "larger height and width, or crop them"
        )
    rows, columns = _window(data.grid.shape, (shape[0], shape[1]))
    around = (
        (rows.start, shape[0] - rows.stop),
        (columns.start, shape[1] - columns.stop),
    )

    def padded(images: np.ndarray) -> np.ndarray:
        return np.pad(images, [(0, 0)] * (images.ndim - 2) + list(around))

    mask = np.ones(data.grid.shape, bool) if data.mask is None else data.mask
    probe = None if data.probe_guess is None else _of_spectrum(data.probe_guess, padded)
    return _changed(data, padded, (shape[0], shape[1]), data.grid.dk, padded(mask), probe)


class _Changed:
    """Patterns in camera layout, each an image of a clean one, read when indexed."""

    checked = True  # bad pixels and shots were left out before

    def __init__(
        self, clean: Patterns | Chosen, shots: int, change: Change, before: tuple[int, int]
    ):
        example = change(np.zeros((0, *before), clean.dtype))
        self.clean = clean
        self.change = change
        self.shape = (shots, *example.shape[1:])
        self.dtype = example.dtype

    def __getitem__(self, index: Any) -> Num[np.ndarray, "b y x"]:
        shots = np.arange(self.shape[0])[index]
        return self.change(np.fft.fftshift(self.clean[shots], axes=(1, 2)))


def _changed(
    data: Dataset,
    change: Change,
    shape: tuple[int, int],
    dk: tuple[float, float],
    mask: np.ndarray | None,
    probe: np.ndarray | None,
) -> Dataset:
    """Measurement of changed patterns, of the far field alone."""
    if "effective_distance_angstrom" in data.about:
        raise ValueError(
            "crop, bin and pad are of diffraction patterns, and this is an in-line hologram, whose "
            "pixels are places; leave them out, or change the file"
        )
    before = data.grid
    pixel = (1 / (shape[0] * dk[0]), 1 / (shape[1] * dk[1]))
    wavelength = None if before.voltage_kv else before.wavelength
    grid = Grid(shape, pixel, before.voltage_kv, wavelength)
    mask = None if mask is None else checked_mask(mask, grid)
    counts = [
        _Changed(data.clean(view), n, change, before.shape) for view, n in enumerate(data.n_shots)
    ]
    return data.derived(counts, grid=grid, mask=mask, probe_guess=probe)


def _window(window: Sequence[int], shape: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a window of patterns of `shape`."""
    if len(window) not in (2, 4):
        raise ValueError(
            f"crop = {list(window)}; [height, width] is required, or [first row, first column, row "
            "after the last, column after the last]"
        )
    if len(window) == 2:  # pixel n//2 stays the one of the zero frequency
        starts = [n // 2 - size // 2 for n, size in zip(shape, window, strict=True)]
        window = [*starts, *(a + size for a, size in zip(starts, window, strict=True))]
    top, left, bottom, right = window
    if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
        raise ValueError(
            f"crop: rows {top} to {bottom} and columns {left} to {right} are not within patterns "
            f"of {_by(shape)} pixels; give a window inside them"
        )
    return slice(top, bottom), slice(left, right)


def _of_spectrum(probe: Shaped[np.ndarray, "*m y x"], change: Change) -> np.ndarray:
    """Waves whose spectrum, zero frequency in the middle, is changed; their power is kept."""
    axes = (-2, -1)
    spectrum = np.fft.fft2(np.fft.ifftshift(probe, axes), norm="ortho")
    changed = change(np.fft.fftshift(spectrum, axes))
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(changed, axes), norm="ortho"), axes)


def _undivided(factor: int, shape: tuple[int, int]) -> str:
    """Sentence for a factor that leaves pixels over."""
    if factor < 1:
        return f"bin = {factor}; a factor of at least 1 is required"
    left = " × ".join(str(n % factor) for n in shape)
    whole = [n - n % factor for n in shape]
    return (
        f"bin = {factor} does not divide patterns of {_by(shape)} pixels: {left} remain; crop them "
        f"to {whole} first, or give another factor"
    )


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} × {shape[1]}"
