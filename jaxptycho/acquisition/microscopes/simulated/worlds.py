"""Simulated worlds: a gentle one and a harsh one, as in the benchmark of predictions."""

import numpy as np

from .geometric_camera import GeometricCamera
from .simulated_microscope import World
from .specimen import SpecimenShape
from .stage import StageErrors

GENTLE = World(
    stage=StageErrors(jitter=1500.0, reading=np.deg2rad(0.003)),
    specimen=SpecimenShape(roughness=1000.0),
)
GENTLE_CAMERA = GeometricCamera(sigma=20.0)
HARSH = World(
    stage=StageErrors(jitter=5000.0, reading=np.deg2rad(0.05)),
    specimen=SpecimenShape(roughness=3000.0),
)
HARSH_CAMERA = GeometricCamera(sigma=100.0)
