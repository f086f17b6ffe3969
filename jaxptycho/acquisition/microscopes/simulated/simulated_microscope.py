"""Simulated microscope: stage, optics, specimen and camera behind the protocol, on its own clock.

It shares no code with the filter that predicts it. It is one picklable object: a copy of it is the
microscope at that moment.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ..microscope import Displacement, Recording, Report, ScanKind
from .faults import MicroscopeFaults
from .geometric_camera import GeometricCamera
from .optics import OpticsErrors, SimulatedOptics
from .specimen import SimulatedSpecimen, SpecimenShape
from .stage import Stage, StageErrors
from .view import ExposureView, point_under_beam


@dataclass(frozen=True)
class CommandTimes:
    """Seconds of every command; a tilt also takes `per_degree`."""

    tilt: float = 3.0
    per_degree: float = 1.0
    move: float = 3.0
    shift: float = 0.5
    focus: float = 0.2
    record: float = 8.0
    track: float = 2.0


@dataclass(frozen=True)
class World:
    """Everything that a simulated microscope is made of."""

    stage: StageErrors = field(default_factory=StageErrors)
    specimen: SpecimenShape = field(default_factory=SpecimenShape)
    optics: OpticsErrors = field(default_factory=OpticsErrors)
    faults: MicroscopeFaults = field(default_factory=MicroscopeFaults)
    times: CommandTimes = field(default_factory=CommandTimes)


@runtime_checkable
class SimulatedCamera(Protocol):
    """Camera of a simulated microscope."""

    def record(
        self, kind: ScanKind, view: ExposureView, report: Report, rng: np.random.Generator
    ) -> Recording:
        """Recording of a view."""
        ...

    def displacement(
        self, scan: Recording, other: Recording, rng: np.random.Generator
    ) -> Displacement:
        """Place of the specimen in one image less that in another."""
        ...


class SimulatedMicroscope:
    """Microscope of one world and one seed; `Microscope` has its commands."""

    def __init__(self, world: World, seed: int, camera: SimulatedCamera | None = None):
        self.world = world
        self.stage = Stage(world.stage, seed)
        self.optics = SimulatedOptics(world.optics, seed)
        self.specimen = SimulatedSpecimen(world.specimen, seed)
        self.camera = camera or GeometricCamera()
        self.time = 0.0
        self.recorded = 0
        self.blanked = True
        self._rng = np.random.default_rng([seed, 5])
        self._reconnected: set[tuple[int, bool]] = set()

    def tilt(self, angle_rad: float) -> None:
        """Tilt the stage."""
        self.world.faults.check_tilt(angle_rad)
        way = np.rad2deg(abs(angle_rad - self.stage.commanded))
        self.time += self.world.times.tilt + self.world.times.per_degree * way
        self.stage.tilt(angle_rad, self.time)

    def move(self, x_angstrom: float, y_angstrom: float, z_angstrom: float) -> None:
        """Move the stage in its own axes; z is upstream."""
        self.time += self.world.times.move
        x_sign, y_sign = self.world.optics.stage_flip
        distance = np.array([x_sign * x_angstrom, y_sign * y_angstrom, -z_angstrom])
        self.stage.move(distance)

    def shift(self, x_angstrom: float, y_angstrom: float) -> None:
        """Set the image shift."""
        self.time += self.world.times.shift
        self.optics.set_shift(np.array([x_angstrom, y_angstrom]))

    def focus(self, underfocus_angstrom: float) -> None:
        """Set the change of underfocus."""
        self.time += self.world.times.focus
        self.optics.underfocus = underfocus_angstrom

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    def blank(self) -> None:
        """Blank the beam."""
        self.blanked = True

    def report(self) -> Report:
        """Settings and readings."""
        x_sign, y_sign = self.world.optics.stage_flip
        x, y, z = self.stage.moved * [x_sign, y_sign, -1]
        return Report(
            time_s=self.time,
            angle_rad=self.stage.reading,
            stage_angstrom=(float(x), float(y), float(z)),
            shift_angstrom=(float(self.optics.shift[0]), float(self.optics.shift[1])),
            underfocus_angstrom=self.optics.underfocus,
            shift_limit_angstrom=self.world.optics.limit,
            recorded=self.recorded,
        )

    def scan(self, kind: ScanKind) -> Recording:
        """Scan; the beam is on afterwards."""
        self.world.faults.check_beam(self.time)
        if kind == "record":
            self._check_connection(made=False)
        self.blanked = False
        view = self.view()
        self.time += getattr(self.world.times, kind)
        recording = self.camera.record(kind, view, self.report(), self._rng)
        if kind == "record":
            self.specimen.expose(view.point[:2], 1.0)
            self.recorded += 1
            self._check_connection(made=True)
            recording = replace(recording, report=self.report())
        return recording

    def displacement(self, scan: Recording, other: Recording) -> Displacement:
        """Place of the specimen in one image less that in another."""
        return self.camera.displacement(scan, other, self._rng)

    def view(self) -> ExposureView:
        """Specimen as an exposure sees it now."""
        pose = self.stage.pose(self.time)
        beam = self.optics.beam()
        point = point_under_beam(self.specimen, pose, beam)
        motion = self.specimen.motion(point[:2])
        height = float(pose.place(point)[2] + motion[2])
        low, high = self.world.specimen.clear
        return ExposureView(
            pose,
            motion,
            beam,
            self.optics.image_axes,
            point,
            self.optics.underfocus_error(height, self.time),
            dark=not low <= pose.angle <= high,
        )

    def offset(self, point: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """Truth: (x, y) from the beam, and z, of a point of the specimen now, in the lab [Å]."""
        return self.view().offset(point)

    def _check_connection(self, made):
        """Lose the connection once, before the recording of a number or after it."""
        number = self.recorded - 1 if made else self.recorded
        if (number, made) not in self._reconnected:
            self._reconnected.add((number, made))
            self.world.faults.check_connection(number, made)
