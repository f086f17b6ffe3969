"""Calibration by small test moves of image shift, stage, focus and tilt, at low dose.

Nothing is assumed of axes and signs. The tilt axis is across the gradient of defocus that a tilt
makes: within one tilt, so that no error of the stage between tilts enters. The sign of the focus
follows from the same gradient. The stage's z is measured twice, by defocus and by the way the
specimen moves on tilting; what contradicts itself is refused.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .calibration import MeasureDisplacement, MicroscopeCalibration
from .microscope import MicroscopeControl, MicroscopeError, Recording

TOLERANCE = 0.15  # relative error of a scale, above which moves contradict each other
MAX_ANGLE = np.deg2rad(15.0)  # between the tilt axis and the stage's x
APPROACH = np.deg2rad(5.0)  # from below, so that backlash is the same at all angles
CIRCLE = np.stack([[np.cos(a), np.sin(a)] for a in np.pi / 4 * np.arange(8)])
SIDES = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


@dataclass(frozen=True)
class TestMoves:
    """Sizes of the moves [Å, rad]: image shift, stage in its plane and along z, focus, and tilt,

    and the image shift around a tilted target that measures its slope.
    """

    shift: float = 15_000.0
    stage: float = 10_000.0
    height: float = 40_000.0
    focus: float = 5_000.0
    angle: float = np.deg2rad(15.0)
    slope: float = 80_000.0


class CalibrationRefused(MicroscopeError):
    """Test moves contradict each other, or show nothing."""


def calibrate_microscope(
    microscope: MicroscopeControl, displacement: MeasureDisplacement, moves: TestMoves | None = None
) -> MicroscopeCalibration:
    """Calibration at the stage's angle 0, where it is left; about 75 tracking scans.

    `CalibrationRefused` if the moves contradict each other.
    """
    return _Calibrator(microscope, displacement, moves or TestMoves()).run()


@dataclass(frozen=True)
class _Tilted:
    """Target, tilted: its place in the image, underfocus there, and in a circle around it."""

    place: Float[np.ndarray, "2"]
    underfocus: float
    around: Float[np.ndarray, " circle"]


class _Calibrator:
    def __init__(self, microscope, displacement, moves):
        self.microscope = microscope
        self.displacement = displacement
        self.moves = moves

    def run(self) -> MicroscopeCalibration:
        self.microscope.tilt(0.0)
        self.microscope.shift(0.0, 0.0)
        self.microscope.focus(0.0)
        self.rest = self._scan()
        self.beam = self._beam_per_shift()
        stage = self._image_per_stage()
        self._check_focus()
        height_slope = self._heights()
        axes, focus_sign, azimuth_sigma = self._axes(stage)
        height_sign = -focus_sign * int(np.sign(height_slope))
        self._check_parallax(axes, height_sign)
        offset, sigma = self._axis_offset(focus_sign)
        self.microscope.tilt(0.0)
        return MicroscopeCalibration(
            shift_matrix=np.linalg.inv(axes @ self.beam),
            image_matrix=axes,
            focus_sign=focus_sign,
            height_sign=height_sign,
            azimuth_sigma=azimuth_sigma,
            axis_offset=offset,
            axis_offset_sigma=sigma,
        )

    def _beam_per_shift(self):
        """Place of the beam in the image at rest, for an image shift."""
        size = self.moves.shift
        beams = []
        for x, y in SIDES:
            self.microscope.shift(float(x * size), float(y * size))
            beams.append(-self._moved(self._scan()))
        self.microscope.shift(0.0, 0.0)
        plus_x, minus_x, plus_y, minus_y = np.array(beams) / size
        matrix = np.stack([plus_x - minus_x, plus_y - minus_y], -1) / 2
        self._check_scale("the image shift", matrix)
        bend = np.max(np.abs([plus_x + minus_x, plus_y + minus_y]))
        if bend > TOLERANCE:
            raise CalibrationRefused(
                f"opposite image shifts of {size / 1e4:g} µm differ by {bend:.0%}; the image "
                "shift or the measured displacements are wrong: look at the images of both"
            )
        return matrix

    def _image_per_stage(self):
        """Place of the specimen in the image, for a move of the stage in its plane."""
        size = self.moves.stage
        columns = []
        for axis in np.eye(2):
            x, y = (float(v) for v in axis * size)
            self.microscope.move(x, y, 0.0)
            forth = self._moved(self._scan())
            self.microscope.move(-2 * x, -2 * y, 0.0)
            back = self._moved(self._scan())
            self.microscope.move(x, y, 0.0)
            columns.append((forth - back) / (2 * size))
        matrix = np.stack(columns, -1)
        self._check_scale("the stage", matrix)
        return matrix

    def _check_scale(self, what, matrix):
        """Refuse a matrix whose singular values are far from 1."""
        scales = np.linalg.svd(matrix, compute_uv=False)
        if np.max(np.abs(scales - 1)) > TOLERANCE:
            raise CalibrationRefused(
                f"a move of {what} is seen {scales[1]:.2f} to {scales[0]:.2f} times as long in "
                "images; 1 is required: correct the size of the pixels, or the calibration of "
                f"{what}"
            )

    def _check_focus(self):
        size = self.moves.focus
        values = []
        for side in (1, -1):
            self.microscope.focus(side * size)
            values.append(self._underfocus(self._scan()))
        self.microscope.focus(0.0)
        slope = (values[0] - values[1]) / (2 * size)
        if abs(slope - 1) > TOLERANCE:
            raise CalibrationRefused(
                f"the measured underfocus changes by {slope:.2f} of what is set; 1 is required: "
                "correct the sign or the scale of either"
            )

    def _heights(self):
        """Slope of the underfocus with the stage's z; tilted targets at three heights."""
        size = self.moves.height
        values = []
        self.pairs = [self._pair_of_tilts()]
        for z in (size, -size):
            self.microscope.move(0.0, 0.0, z)
            values.append(self._underfocus(self._scan()))
            self.pairs.append(self._pair_of_tilts())
            self.microscope.move(0.0, 0.0, -z)
        slope = (values[0] - values[1]) / (2 * size)
        if abs(abs(slope) - 1) > TOLERANCE:
            raise CalibrationRefused(
                f"the measured underfocus changes by {slope:.2f} of a move of the stage along z; "
                "1 or −1 is required: measure the defocus better, or check the stage"
            )
        return slope

    def _pair_of_tilts(self):
        pair = [self._tilted(side * self.moves.angle) for side in (1, -1)]
        self.microscope.tilt(0.0)
        return pair

    def _tilted(self, angle):
        """Target at an angle, and the film around it, which is the same at both angles."""
        self.microscope.tilt(angle - APPROACH)
        self.microscope.tilt(angle)
        place = self._moved(self._scan())
        target = np.linalg.solve(self.beam, place)
        self.microscope.shift(float(target[0]), float(target[1]))
        underfocus = self._underfocus(self._scan())
        values = []
        for x, y in target + self.moves.slope * CIRCLE:
            self.microscope.shift(float(x), float(y))
            values.append(self._underfocus(self._scan()))
        self.microscope.shift(0.0, 0.0)
        return _Tilted(place, underfocus, np.array(values))

    def _axes(self, stage):
        """Rows of x and y in the image, the sign of the focus, and the error of their angle."""
        apart = np.mean([plus.around - minus.around for plus, minus in self.pairs], 0)
        scale = self.moves.slope * 2 * np.tan(self.moves.angle)
        by_shift = 2 * CIRCLE.T @ apart / (len(CIRCLE) * scale)
        gradient = np.linalg.solve(self.beam.T, by_shift)
        residual = apart - np.mean(apart) - scale * CIRCLE @ by_shift
        sigma = np.sqrt(np.sum(residual**2) / (len(CIRCLE) - 3) * 2 / len(CIRCLE)) / scale
        steepness = float(np.hypot(*gradient))
        if abs(steepness - 1) > TOLERANCE:
            raise CalibrationRefused(
                f"the defocus of the tilted specimen changes {steepness:.2f} times as much across "
                "the image as the tilt requires; 1 is required: check the angle, the pixels and "
                "the measured defocus"
            )
        across = gradient / steepness
        focus_sign = int(np.sign(across @ stage[:, 1]))
        y = focus_sign * across
        x = np.array([y[1], -y[0]])
        x = x * np.sign(x @ stage[:, 0])
        askew = np.arccos(np.clip(x @ stage[:, 0] / np.hypot(*stage[:, 0]), -1, 1))
        if askew > MAX_ANGLE:
            raise CalibrationRefused(
                f"the tilt axis is {np.rad2deg(askew):.0f}° from the stage's x; less than "
                f"{np.rad2deg(MAX_ANGLE):.0f}° is required: check the axes of the stage"
            )
        return np.stack([x, y]), focus_sign, float(sigma)

    def _check_parallax(self, axes, height_sign):
        """Refuse if tilting moves a raised specimen the other way than its defocus tells."""
        up, down = (axes[1] @ (plus.place - minus.place) for plus, minus in self.pairs[1:])
        expected = 4 * height_sign * self.moves.height * np.sin(self.moves.angle)
        ratio = (up - down) / expected
        if ratio < 0:
            raise CalibrationRefused(
                "the specimen, moved along z, moves on tilting as if it had gone the other way "
                f"than its defocus tells ({ratio:.2f} of what is expected); check the signs of "
                "the angle and of the measured defocus"
            )

    def _axis_offset(self, focus_sign):
        """Distance of the tilt axis along y, and its standard error from the pairs of tilts."""
        offsets = [
            -focus_sign * (plus.underfocus - minus.underfocus) / (2 * np.sin(self.moves.angle))
            for plus, minus in self.pairs
        ]
        error = np.std(offsets, ddof=1) / np.sqrt(len(offsets))
        return float(np.mean(offsets)), float(error)

    def _scan(self) -> Recording:
        return self.microscope.scan("track")

    def _moved(self, scan):
        apart = self.displacement(scan, self.rest)
        if not np.isfinite(apart.sigma):
            raise CalibrationRefused(
                "an image after a test move has nothing in common with the one before; choose a "
                "wider tracking scan, or a place with more contrast"
            )
        return np.array(apart.value)

    def _underfocus(self, scan):
        if not np.isfinite(scan.underfocus_sigma_angstrom):
            raise CalibrationRefused(
                "no defocus was measured in a tracking scan; the sign of the focus cannot be found "
                "without: record patterns of a defocused probe"
            )
        return scan.underfocus_error_angstrom
