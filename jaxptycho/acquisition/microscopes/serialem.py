"""SerialEM as a microscope, through its Python module `serialem` (bio3d.colorado.edu/SerialEM).

Image shifts are in µm on the specimen there, X along the tilt axis; defocus is in µm, negative
under focus; angles are in degrees.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..pairs import pair_sigma
from ..units import ANGSTROM_PER_NM, ANGSTROM_PER_UM
from .microscope import (
    ConnectionLost,
    DewarFilling,
    Displacement,
    MicroscopeError,
    Recording,
    Report,
    ScanKind,
    ShiftLimit,
    StageRefused,
    ValveClosed,
)

PORT = 48888
COUNTER = "jaxptychoRecorded"  # of SerialEM, where it outlives this process
SHIFT_TOLERANCE = 0.02  # µm, by which an image shift may be off what was asked for
ARRIVAL = 0.5  # s between two looks at a stage that moves
SCANS = {"record": "R", "track": "V"}
ALIGNED = "P"  # buffer that an image is aligned to


class SerialEM:
    """A `Microscope` behind SerialEM.

    `underfocus_um` is the nominal underfocus, which changes are counted from, `shift_sigma` [Å] the
    error of a shift between images of one tilt by SerialEM's alignment.
    """

    def __init__(self, module: Any, underfocus_um: float = 0.0, shift_sigma: float = 20.0):
        self.module = module
        self.underfocus_um = underfocus_um
        self.shift_sigma = shift_sigma
        self._call("NoMessageBoxOnError", 1)
        if self._call("IsVariableDefined", COUNTER) == 0:
            self._call("SetPersistentVar", COUNTER, "0")

    def tilt(self, angle_rad: float) -> None:
        """Tilt the stage and wait until it has arrived."""
        degrees = float(np.rad2deg(angle_rad))
        self._stage("TiltTo", degrees, refusal=f"the stage does not go to {degrees:.1f}°")

    def move(self, x_angstrom: float, y_angstrom: float, z_angstrom: float) -> None:
        """Move the stage by a distance and wait until it has arrived."""
        distance = [v / ANGSTROM_PER_UM for v in (x_angstrom, y_angstrom, z_angstrom)]
        self._stage("MoveStage", *distance, refusal=f"the stage does not move by {distance} µm")

    def shift(self, x_angstrom: float, y_angstrom: float) -> None:
        """Set the image shift; `ShiftLimit` if it is not reached."""
        aim = np.array([x_angstrom, y_angstrom]) / ANGSTROM_PER_UM
        step = aim - self._call("ReportSpecimenShift")[:2]
        self._call("ImageShiftByMicrons", float(step[0]), float(step[1]))
        reached = np.array(self._call("ReportSpecimenShift")[:2])
        if np.max(np.abs(reached - aim)) > SHIFT_TOLERANCE:
            raise ShiftLimit(
                f"an image shift of {np.hypot(*aim):.2f} µm is beyond what SerialEM allows; leave "
                "the target out, or move the stage nearer"
            )

    def focus(self, underfocus_angstrom: float) -> None:
        """Set the change of underfocus from the nominal one."""
        underfocus = self.underfocus_um + underfocus_angstrom / ANGSTROM_PER_UM
        self._call("SetDefocus", -float(underfocus))

    def scan(self, kind: ScanKind) -> Recording:
        """Scan with the Record set, or with the View set ("track").

        The counter in SerialEM is increased before an exposure: after a kill in between it may
        count one that was not made, and never misses one.
        """
        self._check_beam()
        report = self.report()
        self._call("SetBeamBlank", 0)
        if kind == "record":
            self._call("SetPersistentVar", COUNTER, str(report.recorded + 1))
        self._call(SCANS[kind])
        image = np.array(self.module.bufferImage("A"), np.float32)
        pixel = float(self._call("ImageProperties", "A")[4]) * ANGSTROM_PER_NM
        return Recording(self.report(), float(image.mean()), image, pixel)

    def report(self) -> Report:
        """Read the state."""
        x, y, z = (v * ANGSTROM_PER_UM for v in self._call("ReportStageXYZ")[:3])
        shift = [v * ANGSTROM_PER_UM for v in self._call("ReportSpecimenShift")[:2]]
        underfocus = -self._call("ReportDefocus") - self.underfocus_um
        return Report(
            time_s=self._call("ReportClock"),
            angle_rad=float(np.deg2rad(self._call("ReportTiltAngle"))),
            stage_angstrom=(x, y, z),
            shift_angstrom=(shift[0], shift[1]),
            underfocus_angstrom=underfocus * ANGSTROM_PER_UM,
            shift_limit_angstrom=self._call("ReportMaxImageShift", 0) * ANGSTROM_PER_UM,
            recorded=int(float(self._call("GetVariable", COUNTER))),
        )

    def wait(self, seconds: float) -> None:
        """Let SerialEM wait, which can be stopped there."""
        self._call("Delay", float(seconds), "s")

    def blank(self) -> None:
        """Blank the beam, in whatever state SerialEM is."""
        try:
            self.module.SetBeamBlank(1)
        except (self.module.SEMerror, self.module.SEMmoduleError, self.module.SEMexited):
            return  # SerialEM itself blanks the beam between exposures in low dose

    def displacement(self, scan: Recording, other: Recording) -> Displacement:
        """Shift between two images by SerialEM's alignment, which moves nothing."""
        for recording, buffer in ((scan, "A"), (other, ALIGNED)):
            height, width = recording.image.shape
            self._call("PutImageInBuffer", recording.image, buffer, width, height, "A")
        self._call("AlignTo", ALIGNED, 1)
        x, y = (v * ANGSTROM_PER_NM for v in self._call("ReportAlignShift")[4:6])
        here, there = (np.array([r.report.angle_rad]) for r in (scan, other))
        return Displacement((x, y), float(pair_sigma(here, there, self.shift_sigma)[0]))

    def _check_beam(self):
        if self._call("AreDewarsFilling") != 0:
            raise DewarFilling("a dewar is being filled; the series waits")
        if self._call("ReportColumnOrGunValve") == 0:
            raise ValveClosed("the valve of column or gun is closed; open it")

    def _stage(self, command: str, *values: float, refusal: str):
        try:
            getattr(self.module, command)(*values)
        except self.module.SEMerror as error:
            raise StageRefused(f"{refusal} ({_line(error)}); leave it out") from None
        except (self.module.SEMmoduleError, self.module.SEMexited) as error:
            raise self._translated(error) from None
        while self._call("ReportStageBusy") != 0:
            self._call("Delay", ARRIVAL, "s")

    def _call(self, command: str, *values: Any) -> Any:
        """Result of a command of SerialEM; its errors in one sentence."""
        try:
            return getattr(self.module, command)(*values)
        except (self.module.SEMerror, self.module.SEMmoduleError, self.module.SEMexited) as error:
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> MicroscopeError:
        text = _line(error)
        if isinstance(error, self.module.SEMexited):
            return MicroscopeError(f"SerialEM was stopped ({text}); resume with --resume")
        if isinstance(error, self.module.SEMmoduleError):
            return ConnectionLost(
                f"SerialEM does not take commands ({text}); end what it is doing, then resume with "
                "--resume"
            )
        return MicroscopeError(f"SerialEM reports an error ({text}); resume with --resume")


def connect(
    address: str = "127.0.0.1",
    port: int = PORT,
    load: Callable[[str], Any] = importlib.import_module,
    **options: float,
) -> SerialEM:
    """SerialEM at an address. MicroscopeError, in one sentence, if there is none."""
    try:
        module = load("serialem")
    except ImportError:
        raise MicroscopeError(
            "there is no module serialem in this Python; add the folder PythonModules of SerialEM "
            "to PYTHONPATH, or simulate with --simulate"
        ) from None
    try:
        module.ConnectToSEM(port, address)
    except (module.SEMerror, module.SEMmoduleError, module.SEMexited) as error:
        raise ConnectionLost(
            f"SerialEM at {address}:{port} does not answer ({_line(error)}); start it with the "
            "property EnableExternalPython, and end what it is doing"
        ) from None
    return SerialEM(module, **options)


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
