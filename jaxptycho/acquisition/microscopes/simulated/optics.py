"""Simulated optics: what settings of image shift and focus do, and in what axes an image comes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..microscope import ShiftLimit

UM = 1e4  # Å


@dataclass(frozen=True)
class OpticsErrors:
    """Axes of the microscope, and sizes of its errors (standard deviations).

    `image_flip` and `stage_flip` are signs of x and y, `shift_handedness` −1 reverses y of the
    image shift, which is rotated by `shift_rotation`; images are rotated by `image_rotation` [rad].
    `focus_sign` is 1 for STEM, whose lens is above the specimen, −1 for TEM. `matrix` is the
    relative error of the image shift, `hysteresis` [Å] that of every setting, `focus_drift`
    [Å/s], `focus_of_shift` [Å per µm²]; `limit` [Å] of the image shift.
    """

    image_flip: tuple[int, int] = (1, 1)
    stage_flip: tuple[int, int] = (1, 1)
    shift_handedness: int = 1
    shift_rotation: float = 0.0
    image_rotation: float = 0.0
    focus_sign: int = 1
    matrix: float = 0.0
    hysteresis: float = 0.0
    focus_drift: float = 0.0
    focus_of_shift: float = 0.0
    limit: float = 150_000.0


class SimulatedOptics:
    """Optics of one seed, without shift and in nominal focus at first."""

    def __init__(self, errors: OpticsErrors, seed: int):
        self.errors = errors
        self._rng = rng = np.random.default_rng([seed, 4])
        handedness = np.diag([1.0, errors.shift_handedness])
        matrix = _rotation(errors.shift_rotation) @ handedness
        self.shift_matrix = (np.eye(2) + rng.normal(0, errors.matrix, (2, 2))) @ matrix
        self.image_axes = np.diag(errors.image_flip) @ _rotation(errors.image_rotation)
        self._focus_speed = rng.normal(0, errors.focus_drift)
        self._off = np.zeros(2)
        self.shift = np.zeros(2)
        self.underfocus = 0.0

    def set_shift(self, shift: Float[np.ndarray, "2"]) -> None:
        """Set the image shift; `ShiftLimit` beyond the limit."""
        length = float(np.hypot(*shift))
        if length > self.errors.limit:
            raise ShiftLimit(
                f"an image shift of {length / UM:.2f} µm is beyond the limit of "
                f"{self.errors.limit / UM:.2f} µm; move the stage, or leave the target out"
            )
        self.shift = shift
        self._off = self._rng.normal(0, self.errors.hysteresis, 2)

    def beam(self) -> Float[np.ndarray, "2"]:
        """Place (x, y) in the lab where the beam is."""
        return self.shift_matrix @ self.shift + self._off

    def underfocus_error(self, height: float, time: float) -> float:
        """Underfocus less the nominal one, of a specimen at a height (downstream) at a time."""
        of_shift = self.errors.focus_of_shift * float(self.shift @ self.shift) / UM**2
        of_lens = self.underfocus + self._focus_speed * time + of_shift
        return of_lens - self.errors.focus_sign * height


def _rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    """Rotation of (x, y) by an angle [rad]."""
    cos = np.cos(angle)
    sin = np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
