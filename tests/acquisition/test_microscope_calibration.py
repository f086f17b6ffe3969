"""Calibration by test moves: every combination of signs is found, contradictions are refused."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from jaxptycho.acquisition.microscopes.calibrate import CalibrationRefused, calibrate_microscope
from jaxptycho.acquisition.microscopes.simulated import (
    GENTLE,
    HARSH,
    HARSH_CAMERA,
    GeometricCamera,
    OpticsErrors,
    SimulatedMicroscope,
    StageErrors,
)

SIGNS = list(product((1, -1), (1, -1), (1, -1), (1, -1)))
EXACT_STAGE = StageErrors(
    runout=0.0, jitter=0.0, backlash=0.0, drift=0.0, angle=0.0, reading=0.0, move=0.0
)


def found(microscope):
    return calibrate_microscope(microscope, microscope.displacement)


def optics(flip_x, flip_y, handedness, focus, turned=0.0):
    return OpticsErrors(
        image_flip=(flip_x, flip_y),
        stage_flip=(-flip_y, flip_x),
        shift_handedness=handedness,
        focus_sign=focus,
        shift_rotation=0.4 + turned,
        image_rotation=-0.7 + 2 * turned,
    )


def check_aim(microscope, calibration, tolerance):
    """A target that is aimed at by the relations of a series is in the middle and in focus."""
    aim = np.array([20_000.0, -30_000.0])
    microscope.shift(*calibration.image_shift(*aim))
    point = microscope.view().point
    first = microscope.scan("track")
    before = first.underfocus_error_angstrom
    there = np.array(calibration.place(*microscope.report().shift_angstrom))
    np.testing.assert_allclose(there, aim)
    flip = np.array(microscope.world.optics.stage_flip)
    # height in the calibrated frame: of the lab where the stage's y is the lab's
    z = microscope.offset(point)[2] * flip[1]
    microscope.tilt(0.3)
    y, z = aim[1] * np.cos(0.3) + z * np.sin(0.3), z * np.cos(0.3) - aim[1] * np.sin(0.3) - z
    microscope.shift(*calibration.image_shift(float(aim[0]), float(y)))
    microscope.focus(calibration.focus_sign * float(z))
    assert np.hypot(*microscope.offset(point)[:2]) < tolerance
    seen = calibration.in_frame(microscope.displacement(microscope.scan("track"), first))
    assert np.hypot(*seen.value) < tolerance
    after = microscope.scan("track").underfocus_error_angstrom
    assert abs(after - before) < tolerance


@pytest.mark.parametrize("signs", SIGNS)
def test_all_combinations_of_signs_are_found(signs):
    stage = replace(EXACT_STAGE, axis_offset=0.0)
    world = replace(GENTLE, stage=stage, optics=optics(*signs))
    microscope = SimulatedMicroscope(world, 5, GeometricCamera(sigma=10.0, defocus=50.0))
    check_aim(microscope, found(microscope), 400.0)


@pytest.mark.parametrize("seed", range(4))
def test_signs_are_found_on_a_harsh_stage(seed):
    for signs in SIGNS[seed::4]:
        world = replace(HARSH, optics=optics(*signs, turned=seed))
        microscope = SimulatedMicroscope(world, seed, HARSH_CAMERA)
        calibration = found(microscope)
        truth = microscope.optics
        frame = np.diag(world.optics.stage_flip)
        np.testing.assert_allclose(calibration.image_matrix @ truth.image_axes, frame, atol=0.1)
        np.testing.assert_allclose(
            frame @ truth.shift_matrix @ calibration.shift_matrix, np.eye(2), atol=0.1
        )
        assert calibration.focus_sign == world.optics.focus_sign * frame[1, 1]
        assert calibration.height_sign == -frame[1, 1]


def test_the_offset_of_the_axis_is_measured():
    errors = []
    for seed in range(6):
        world = replace(GENTLE, stage=replace(EXACT_STAGE, axis_offset=5000.0))
        microscope = SimulatedMicroscope(world, seed)
        calibration = found(microscope)
        upwards = microscope.stage._axis[0, 1]
        errors.append(calibration.axis_offset - upwards)
    assert np.sqrt(np.mean(np.square(errors))) < 500.0


class Contradiction(SimulatedMicroscope):
    """Microscope of which one thing is not as the rest says."""

    def __init__(self, kind):
        super().__init__(replace(GENTLE, stage=EXACT_STAGE), 0)
        self.kind = kind

    def focus(self, underfocus_angstrom):
        super().focus(-underfocus_angstrom if self.kind == "focus" else underfocus_angstrom)

    def tilt(self, angle_rad):
        super().tilt(angle_rad / 2 if self.kind == "angle" else angle_rad)

    def move(self, x_angstrom, y_angstrom, z_angstrom):
        if self.kind == "z":
            z_angstrom = 0.0
        if self.kind == "axes":
            x_angstrom, y_angstrom = y_angstrom, x_angstrom
        super().move(x_angstrom, y_angstrom, z_angstrom)

    def shift(self, x_angstrom, y_angstrom):
        scale = 1.3 if self.kind == "shift" else 1.0
        x = 0.0 if self.kind == "dead" else scale * x_angstrom
        super().shift(x, scale * y_angstrom)

    def scan(self, kind):
        scan = super().scan(kind)
        if self.kind == "parallax" and abs(self.stage.commanded) < 0.1:
            # the height is read with the other sign, but not the gradient
            change = self.optics.underfocus
            error = change - (scan.underfocus_error_angstrom - change)
            return replace(scan, underfocus_error_angstrom=error)
        if self.kind == "no defocus":
            return replace(scan, underfocus_sigma_angstrom=np.inf)
        return scan


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("focus", "measured underfocus changes by -(1.0|0.9). of what is set"),
        ("angle", "0.[45]. times as much across the image as the tilt requires"),
        ("z", "of a move of the stage along z"),
        ("axes", "the tilt axis is (8|9).° from the stage's x"),
        ("shift", "the image shift is seen 1.30 to 1.30 times as long"),
        ("dead", "the image shift is seen 0.00 to 1.00 times as long"),
        ("parallax", "as if it had gone the other way"),
        ("no defocus", "no defocus was measured"),
    ],
)
def test_contradictions_are_refused(kind, message):
    microscope = Contradiction(kind)
    with pytest.raises(CalibrationRefused, match=message):
        found(microscope)


def test_images_without_anything_in_common_are_refused():
    microscope = SimulatedMicroscope(GENTLE, 0, GeometricCamera(track_field=1000.0))
    with pytest.raises(CalibrationRefused, match="nothing in common"):
        found(microscope)
