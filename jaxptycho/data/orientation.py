"""Orientation of a scan relative to the detector: one of eight transforms, and a rotation."""

import numpy as np
from jaxtyping import Float

# The eight orientations of the axes of a scan relative to those of the detector, as matrices on
# (y, x); rotations are counter-clockwise as seen with y downwards.
SCAN_TRANSFORMS = {
    "none": ((1, 0), (0, 1)),
    "flip_y": ((-1, 0), (0, 1)),
    "flip_x": ((1, 0), (0, -1)),
    "rotate_90": ((0, -1), (1, 0)),
    "rotate_180": ((-1, 0), (0, -1)),
    "rotate_270": ((0, 1), (-1, 0)),
    "transpose": ((0, 1), (1, 0)),
    "antitranspose": ((0, -1), (-1, 0)),
}


def orientation_matrix(transform: str, rotation: float) -> Float[np.ndarray, "2 2"]:
    """Matrix on (y, x): the transform, then a counter-clockwise rotation [rad]."""
    if transform not in SCAN_TRANSFORMS:
        raise ValueError(
            f"no scan transform is called {transform!r}; known are {', '.join(SCAN_TRANSFORMS)}"
        )
    return _rotation(rotation) @ np.array(SCAN_TRANSFORMS[transform], float)


def nearest_transform(matrix: Float[np.ndarray, "2 2"]) -> tuple[str, float]:
    """Transform nearest to an orthogonal matrix on (y, x), and the rotation after it [rad]."""
    agreement = {n: np.sum(matrix * np.array(m)) for n, m in SCAN_TRANSFORMS.items()}
    nearest = max(agreement, key=lambda name: agreement[name])
    rest = matrix @ np.array(SCAN_TRANSFORMS[nearest]).T
    return nearest, float(np.arctan2(rest[1, 0], rest[0, 0]))


def _rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])
