"""The module `serialem` with a simulated microscope behind it, for scripts and adapters.

Commands take and return what those of SerialEM do: arguments are checked by the keys of its list
of commands (D number, I integer, S text; small letters are optional), numbers come back as floats,
several as a tuple, none as None. µm, degrees, and X along the tilt axis, as there. Where the camera
makes no image, the pixels of a buffer hold the number of its recording.
"""

import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from .microscope import MicroscopeError, Recording, ShiftLimit
from .serialem_signatures import SIGNATURES, check_arguments
from .simulated import SimulatedMicroscope

UM = 1e4  # Å
NM = 10.0
IS_ROTATION = np.deg2rad(37.0)  # of the axes of image-shift units
IS_UNITS_PER_UM = 1.25
NUMBERED = (8, 8)  # pixels of an image that holds a number
EFFECTLESS = (
    "AdjustBeamTiltforIS",
    "ClearStatusLine",
    "Echo",
    "GoToLowDoseArea",
    "KeyBreak",
    "LimitNextAutoAlign",
    "NoMessageBoxOnError",
    "RestoreBeamTilt",
    "SetColumnOrGunValve",
    "SetStatusLine",
    "SuppressReports",
)


class SEMerror(Exception):
    """A command failed."""


class SEMmoduleError(Exception):
    """SerialEM cannot be reached, or is busy."""


class SEMexited(Exception):
    """The script ended: by `Exit`, or as the user pressed STOP."""


class FakeSerialEM:
    """Commands of SerialEM for a simulated microscope.

    `connected`, `busy` and `stopped` are states that a test, or a user of the program, changes.
    """

    def __init__(self, microscope: SimulatedMicroscope):
        self.microscope = microscope
        self.connected = False
        self.busy = False
        self.stopped = False
        self.variables: dict[str, str] = {}
        self.buffers: dict[str, Recording] = {}
        self.files: dict[str, list[Recording]] = {}
        self.autodoc: dict[str, str] = {}
        self._recordings: list[Recording] = []
        self._file = ""
        self._aligned = np.zeros(2)
        self._target_defocus = 0.0
        self._axis_offset = 0.0
        self._clock_zero = 0.0
        self._align_limit = math.inf

    def ConnectToSEM(self, port: int = 48888, address: str = "127.0.0.1") -> None:
        """Begin to take commands."""
        if self.busy:
            raise SEMmoduleError("SerialEM is busy and cannot run a script")
        self.connected = True

    def bufferImage(self, buffer: str) -> np.ndarray:
        """Image in a buffer, (y, x)."""
        return self._image(self._buffer(buffer))

    def PutImageInBuffer(
        self, image: np.ndarray, buffer: str, width: int, height: int, base: str = "A"
    ) -> None:
        """Copy an image into a buffer."""
        if np.shape(image) != (height, width):
            raise SEMerror(f"the image is not {width} × {height}")
        number = int(np.asarray(image)[0, 0])
        if np.shape(image) == NUMBERED and 0 <= number < len(self._recordings):
            self.buffers[buffer] = self._recordings[number]
            return
        raise SEMerror("only images of this session are known")

    def run(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """Result of a command, with its arguments checked."""
        check_arguments(name, arguments)
        if self.stopped:
            raise SEMexited("User STOP")
        if not self.connected or self.busy:
            raise SEMmoduleError("SerialEM is not connected, or is busy")
        if name in EFFECTLESS:
            return None
        try:
            return _floats(getattr(self, f"_{name}")(*arguments))
        except MicroscopeError as error:
            raise SEMerror(str(error)) from None

    # stage

    def _TiltTo(self, degrees, *rest):
        self.microscope.tilt(float(np.deg2rad(degrees)))

    def _TiltBy(self, degrees, *rest):
        self._TiltTo(np.rad2deg(self.microscope.stage.commanded) + degrees)

    def _TiltUp(self, *rest):
        self._TiltBy(3.0)

    def _BackgroundTilt(self, degrees, *rest):
        self._TiltTo(degrees)

    def _ReportTiltAngle(self):
        return np.rad2deg(self.microscope.report().angle_rad)

    def _MoveStage(self, x, y, z=0.0):
        self.microscope.move(x * UM, y * UM, z * UM)

    def _MoveStageTo(self, x, y, z=None):
        here = self._ReportStageXYZ()
        self._MoveStage(x - here[0], y - here[1], 0.0 if z is None else z - here[2])

    def _ReportStageXYZ(self):
        return tuple(v / UM for v in self.microscope.report().stage_angstrom)

    def _ReportStageBusy(self):
        return 0

    def _Eucentricity(self, *rest):
        self.microscope.time += 30.0

    # optics

    def _SetImageShift(self, x, y, delay=0.0, adjust=0):
        self._shift_to(_is_to_specimen() @ [x, y], delay)

    def _ImageShiftByUnits(self, x, y, delay=0.0, adjust=0):
        self._shift_to(self._ReportSpecimenShift() + _is_to_specimen() @ [x, y], delay)

    def _ImageShiftByMicrons(self, x, y, delay=0.0, adjust=0):
        self._shift_to(np.add(self._ReportSpecimenShift(), [x, y]), delay)

    def _shift_to(self, um, delay):
        self.microscope.wait(delay)
        try:
            self.microscope.shift(*(float(v) * UM for v in um))
        except ShiftLimit:
            return  # SerialEM reports it in its log, and stays

    def _ReportSpecimenShift(self):
        return tuple(v / UM for v in self.microscope.report().shift_angstrom)

    def _ReportImageShift(self):
        return tuple(np.linalg.solve(_is_to_specimen(), self._ReportSpecimenShift()))

    def _ReportMaxImageShift(self, magnification):
        return self.microscope.report().shift_limit_angstrom / UM

    def _ISToSpecimenMatrix(self, magnification):
        return tuple(_is_to_specimen().ravel())

    def _SpecimenToISMatrix(self, magnification):
        return tuple(np.linalg.inv(_is_to_specimen()).ravel())

    def _StageToSpecimenMatrix(self, magnification):
        return (1, 0, 0, 1)

    _CameraToSpecimenMatrix = _StageToSpecimenMatrix
    _SpecimenToCameraMatrix = _StageToSpecimenMatrix

    def _SetDefocus(self, um):
        self.microscope.focus(-um * UM)

    def _ChangeFocus(self, um):
        self._SetDefocus(self._ReportDefocus() + um)

    def _ReportDefocus(self):
        return -self.microscope.report().underfocus_angstrom / UM

    def _SetTargetDefocus(self, um):
        self._target_defocus = um

    def _AutoFocus(self, change=1, *rest):
        recording = self._acquire("track")
        found = -float(recording.underfocus_error_angstrom) / UM
        self.variables["autofocus"] = repr(found)
        if change > 0:
            self._ChangeFocus(self._target_defocus - found)

    _G = _AutoFocus

    def _ReportAutoFocus(self):
        return float(self.variables.get("autofocus", "0")), 0

    def _ReportTiltAxisOffset(self):
        return self._axis_offset

    def _SetTiltAxisOffset(self, um):
        self._axis_offset = um

    def _SetBeamBlank(self, blanked):
        if blanked:
            self.microscope.blank()

    def _ReportColumnOrGunValve(self):
        return 0 if self._within("valve_closed") else 1

    def _AreDewarsFilling(self):
        return 1 if self._within("dewar_filling") else 0

    def _within(self, name):
        intervals = getattr(self.microscope.world.faults, name)
        return any(low <= self.microscope.time <= high for low, high in intervals)

    def _ReportMag(self):
        return 81000, 0

    # camera and buffers

    def _acquire(self, kind):
        recording = self.microscope.scan(kind)
        self._recordings.append(recording)
        self.buffers |= {"B": self.buffers["A"]} if "A" in self.buffers else {}
        self.buffers["A"] = recording
        return recording

    def _R(self):
        self._acquire("record")

    _Record = _R
    _L = _R

    def _V(self):
        self._acquire("track")

    _View = _V
    _T = _V
    _Trial = _V

    def _Copy(self, source, target):
        self.buffers[target] = self._buffer(source)

    def _ImageProperties(self, buffer="A"):
        recording = self._buffer(buffer)
        height, width = self._image(recording).shape
        return width, height, 1, 1.0, recording.pixel_angstrom / NM, 0

    def _ReportMeanCounts(self, buffer="A", *rest):
        return self._buffer(buffer).mean_count

    def _AlignTo(self, buffer, still=0, *rest):
        apart = self.microscope.displacement(self._buffer("A"), self._buffer(buffer))
        if not math.isfinite(apart.sigma):
            raise SEMerror("the correlation has no peak")
        self._aligned = np.array(apart.value)
        if not still:
            x, y = (float(v) / UM for v in self._aligned)
            self._ImageShiftByMicrons(x, y)

    def _ReportAlignShift(self):
        nm = self._aligned / NM
        pixels = self._aligned / self._buffer("A").pixel_angstrom
        units = np.linalg.solve(_is_to_specimen(), nm)
        return (*pixels, *units, *nm)

    def _ReportISforBufferShift(self):
        return tuple(np.linalg.solve(_is_to_specimen(), self._aligned / UM))

    # files, variables, time

    def _OpenNewFile(self, name):
        if name in self.files:
            raise SEMerror(f"the file {name} exists")
        self.files[name] = []
        self._file = name

    def _CloseFile(self, *rest):
        self._file = ""

    def _ReportFileZsize(self):
        return len(self.files.get(self._file, []))

    def _S(self, buffer="A", *rest):
        if not self._file:
            raise SEMerror("no file is open")
        self.files[self._file].append(self._buffer(buffer))

    _Save = _S

    def _AddToAutodoc(self, key, value):
        self.autodoc[key] = value

    def _WriteAutodoc(self):
        return None

    def _SetVariable(self, name, value):
        self.variables[name] = value

    _SetPersistentVar = _SetVariable

    def _GetVariable(self, name):
        if name not in self.variables:
            raise SEMerror(f"the variable {name} is not defined")
        return self.variables[name]

    def _IsVariableDefined(self, name):
        return int(name in self.variables)

    def _IsVersionAtLeast(self, *rest):
        return 1

    def _ReportClock(self):
        return self.microscope.time - self._clock_zero

    def _ResetClock(self):
        self._clock_zero = self.microscope.time

    def _Delay(self, time, unit="ms"):
        self.microscope.wait(time * {"ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0}.get(unit, 60))

    def _Pause(self, *rest):
        return None

    def _Exit(self, *rest):
        raise SEMexited("the script has ended")

    def _buffer(self, name):
        if name not in self.buffers:
            raise SEMerror(f"the buffer {name} is empty")
        return self.buffers[name]

    def _image(self, recording):
        if recording.image.size:
            return np.asarray(recording.image)
        number = next(i for i, one in enumerate(self._recordings) if one is recording)
        return np.full(NUMBERED, number, np.float32)


def fake_module(fake: FakeSerialEM) -> types.ModuleType:
    """Module `serialem` whose commands are those of a fake; put it into `sys.modules`."""
    module = types.ModuleType("serialem")
    module.__dict__.update(
        SEMerror=SEMerror,
        SEMmoduleError=SEMmoduleError,
        SEMexited=SEMexited,
        ConnectToSEM=fake.ConnectToSEM,
        bufferImage=fake.bufferImage,
        PutImageInBuffer=fake.PutImageInBuffer,
        **{name: _command(fake, name) for name in SIGNATURES},
    )
    return module


def _command(fake: FakeSerialEM, name: str) -> Callable[..., Any]:
    def command(*arguments: Any) -> Any:
        return fake.run(name, arguments)

    command.__name__ = name
    return command


def _floats(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(float(value) for value in result)
    return result if result is None or isinstance(result, str) else float(result)


def _is_to_specimen():
    cos = np.cos(IS_ROTATION)
    sin = np.sin(IS_ROTATION)
    return np.array([[cos, -sin], [sin, cos]]) / IS_UNITS_PER_UM
