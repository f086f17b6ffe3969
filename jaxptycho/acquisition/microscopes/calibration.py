"""Calibration of a microscope: from its commands and images to the frame of the specimen.

Frame: x along the tilt axis and y across, in the directions of the stage's own x and y, and the
height z of a target such that tilting to θ > 0 moves it by z sin θ along y. The signs of the
microscope thus leave one unknown to a predictor, the sign of the focus.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .microscope import Displacement, Recording

MeasureDisplacement = Callable[[Recording, Recording], Displacement]


@dataclass(frozen=True)
class MicroscopeCalibration:
    """Image shift and image of a microscope in the frame of the specimen; lengths in Å.

    `shift_matrix` gives the image shift for a place (x, y), `image_matrix` the (x, y) of a
    displacement in an image, `focus_sign` the change of underfocus by height that keeps focus (1
    or −1), `height_sign` that of height by the stage's z, `azimuth_sigma` [rad] the standard error
    of the direction of x. `axis_offset` is the place of the tilt axis along y,
    runout of the stage between the two angles included.
    """

    shift_matrix: Float[np.ndarray, "2 2"]
    image_matrix: Float[np.ndarray, "2 2"]
    focus_sign: int
    height_sign: int
    azimuth_sigma: float
    axis_offset: float
    axis_offset_sigma: float

    def image_shift(self, x: float, y: float) -> tuple[float, float]:
        """Image shift that brings the beam to a place."""
        shift = self.shift_matrix @ np.array([x, y])
        return float(shift[0]), float(shift[1])

    def place(self, x_angstrom: float, y_angstrom: float) -> tuple[float, float]:
        """Place (x, y) where an image shift brings the beam."""
        place = np.linalg.solve(self.shift_matrix, np.array([x_angstrom, y_angstrom]))
        return float(place[0]), float(place[1])

    def in_frame(self, displacement: Displacement) -> Displacement:
        """Displacement in an image, in (x, y) of the frame."""
        value = self.image_matrix @ np.array(displacement.value)
        return Displacement((float(value[0]), float(value[1])), displacement.sigma)
