"""Simulated microscope: a stage, optics, a specimen and a camera with every error and failure."""

from .faults import MicroscopeFaults
from .geometric_camera import GeometricCamera
from .optics import OpticsErrors
from .simulated_microscope import CommandTimes, SimulatedMicroscope, World
from .specimen import SpecimenShape
from .stage import StageErrors
from .worlds import GENTLE, GENTLE_CAMERA, HARSH, HARSH_CAMERA

__all__ = [
    "GENTLE",
    "GENTLE_CAMERA",
    "HARSH",
    "HARSH_CAMERA",
    "CommandTimes",
    "GeometricCamera",
    "MicroscopeFaults",
    "OpticsErrors",
    "SimulatedMicroscope",
    "SpecimenShape",
    "StageErrors",
    "World",
]
