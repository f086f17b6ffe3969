"""What a simulated camera is given: the specimen as it is during one exposure."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .specimen import SimulatedSpecimen
from .stage import StagePose

LANDINGS = 6  # fixed-point steps from the beam to the film, whose slope is small


@dataclass(frozen=True)
class ExposureView:
    """Exposure: pose of the stage, motion of the film, beam (x, y) in the lab, axes of images.

    `point` is the point of the specimen under the beam and `underfocus_error` that of it [Å].
    """

    pose: StagePose
    motion: Float[np.ndarray, "3"]
    beam: Float[np.ndarray, "2"]
    image_axes: Float[np.ndarray, "2 2"]
    point: Float[np.ndarray, "3"]
    underfocus_error: float
    dark: bool

    def offset(self, points: Float[np.ndarray, "*s 3"]) -> Float[np.ndarray, "*s 3"]:
        """Lab (x, y) from the beam, and z, of points of the specimen."""
        return self.pose.place(points) + self.motion - np.append(self.beam, 0.0)

    def in_image(self, points: Float[np.ndarray, "*s 3"]) -> Float[np.ndarray, "*s 2"]:
        """Place (x, y) of points of the specimen in the image, from its middle."""
        return self.offset(points)[..., :2] @ self.image_axes.T


def point_under_beam(
    specimen: SimulatedSpecimen, pose: StagePose, beam: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "3"]:
    """Point of the film that is projected onto the beam."""
    place = np.zeros(2)
    stretch = np.array([1.0, 1 / np.cos(pose.angle)])
    for _ in range(LANDINGS):
        point = specimen.surface(place)
        place = place + (beam - pose.place(point)[:2]) * stretch
    return specimen.surface(place)
