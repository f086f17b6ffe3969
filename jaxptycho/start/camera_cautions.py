"""Cautions about faults of cameras and readouts that the patterns show."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

from ..data import Dataset
from ..data.bad_pixels import describe_pixels
from ..data.checks import of_view
from ..data.pixel_statistics import dim_noise
from .beam_stop import beam_stop
from .caution import Caution, Measurement
from .count_statistics import modulus
from .gain_steps import gain_step
from .lost_frames import shifted_frames


def of_wrapped_counts(measured: Measurement) -> Iterator[Caution]:
    """Counts that begin again at zero beyond the largest value of their type."""
    found = modulus(measured.noise)
    if found is not None:
        yield Caution(
            "data.file",
            f"counts go up to {found - 1} and from there to 0 again: larger ones have lost "
            f"multiples of {found} in the camera or the conversion of the file; use a file with "
            "more bits, or mask these pixels",
        )


def of_gain(measured: Measurement) -> Iterator[Caution]:
    """A chip of the camera with another gain."""
    data = measured.data
    found = gain_step(_electrons(data), _visible(data))
    if found is not None:
        rows, columns = ("{} to {}".format(*lines) for lines in (found.rows, found.columns))
        yield Caution(
            "data.mask_file",
            f"the counts of rows {rows} and columns {columns} are {found.gain:.3g} times those "
            "beside them, with a straight edge: has this part of the camera another gain? Divide "
            "by a flat field, or mask it",
        )


def of_beam_stop(measured: Measurement) -> Iterator[Caution]:
    """Pixels behind a beam stop."""
    data = measured.data
    found = beam_stop(_electrons(data), _visible(data), measured.is_far_field_of_electrons)
    if found.any():
        yield Caution(
            "data.mask_file",
            f"{describe_pixels(found)} have far fewer counts than those around, with a sharp edge: "
            "are they behind a beam stop? Mask them",
        )


def of_shifted_frames(measured: Measurement) -> Iterator[Caution]:
    """Patterns that are off by one or two against the positions."""
    data = measured.data
    for view in range(data.n_views):
        found = shifted_frames(data, view)
        if found is None:
            continue
        count = "one" if abs(found.ahead) == 1 else str(abs(found.ahead))
        what = f"{count} lost" if found.ahead > 0 else f"{count} too many"
        yield Caution(
            "data.frames",
            f"at the ends of lines from about shot {data.shots[view][found.shot]} on, the patterns"
            f"{of_view(view, data.n_views)} do not follow the positions: {what} before? Put a "
            "pattern in or leave one out, or drop its position",
        )
        return


def _electrons(data: Dataset) -> Float[np.ndarray, "y x"]:
    """At most the electrons of every pixel in all patterns."""
    return data.mean_pattern() * sum(data.n_shots) / max(dim_noise(data.valid_sample), 1e-30)


def _visible(data: Dataset) -> Bool[np.ndarray, "y x"]:
    return np.ones(data.grid.shape, bool) if data.mask is None else np.asarray(data.mask, bool)
