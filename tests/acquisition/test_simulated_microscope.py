"""Simulated microscope: its geometry by closed forms, its clock, and every failure."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from jaxptycho.acquisition.microscopes import microscope as errors
from jaxptycho.acquisition.microscopes.simulated import (
    HARSH,
    GeometricCamera,
    MicroscopeFaults,
    OpticsErrors,
    SimulatedMicroscope,
    SpecimenShape,
    StageErrors,
    World,
)

EXACT_STAGE = StageErrors(
    runout=0.0,
    jitter=0.0,
    backlash=0.0,
    axis_offset=0.0,
    drift=0.0,
    angle=0.0,
    reading=0.0,
    move=0.0,
)
FLAT = SpecimenShape(height=5000.0, slope=0.0, roughness=0.0)
EXACT = World(EXACT_STAGE, FLAT)
NOISELESS = GeometricCamera(sigma=0.0, defocus=0.0)


def exact(seed=0, **optics):
    return SimulatedMicroscope(replace(EXACT, optics=OpticsErrors(**optics)), seed, NOISELESS)


def test_a_target_moves_across_the_axis_as_its_height_says():
    microscope = exact()
    first = microscope.scan("record")
    height = first.view.point[2]
    assert height != 0
    microscope.tilt(np.deg2rad(10.0))
    shift = microscope.displacement(microscope.scan("track"), first)
    np.testing.assert_allclose(shift.value, [0.0, height * np.sin(np.deg2rad(10))], atol=1e-9)


def test_an_aimed_target_is_in_the_middle_and_in_focus():
    microscope = exact(focus_sign=-1)
    microscope.shift(30_000.0, -20_000.0)
    point = microscope.view().point
    microscope.tilt(0.5)
    x, y, z = microscope.offset(point) + np.array([30_000.0, -20_000.0, 0.0])
    microscope.shift(float(x), float(y))
    microscope.focus(-float(z))
    np.testing.assert_allclose(microscope.offset(point)[:2], 0, atol=1e-9)
    np.testing.assert_allclose(microscope.view().point, point, atol=1e-6)
    assert abs(microscope.scan("record").underfocus_error_angstrom) < 1e-6


def test_the_lens_of_a_stem_is_above_the_specimen_and_that_of_a_tem_below():
    for sign in (1, -1):
        microscope = exact(focus_sign=sign)
        before = microscope.scan("track").underfocus_error_angstrom
        microscope.move(0.0, 0.0, 2000.0)  # upstream
        change = microscope.scan("track").underfocus_error_angstrom - before
        np.testing.assert_allclose(change, sign * 2000.0)


def test_flips_of_axes_reverse_what_images_show():
    for flip in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        microscope = exact(image_flip=flip)
        first = microscope.scan("track")
        microscope.move(300.0, 200.0, 0.0)
        shift = microscope.displacement(microscope.scan("track"), first)
        np.testing.assert_allclose(shift.value, [300.0 * flip[0], 200.0 * flip[1]], atol=1e-9)


def test_errors_of_a_stage_have_the_sizes_asked_for():
    sizes = StageErrors(
        runout=0.0, jitter=1000.0, degrees_of_freedom=5.0, backlash=0.0, axis_offset=0.0, drift=0.0
    )
    microscope = SimulatedMicroscope(World(sizes, FLAT), 3)
    places = []
    for k in range(4000):
        microscope.tilt(np.deg2rad(3.0 * (k % 2)))
        places.append(microscope.stage.pose(0.0).translation)
    deviations = np.std(places, axis=0)
    np.testing.assert_allclose(deviations, [1000.0, 1000.0, 300.0], rtol=0.08)


def test_backlash_depends_on_the_direction_of_approach_and_drift_decays():
    sizes = StageErrors(runout=0.0, jitter=0.0, axis_offset=0.0, drift=10.0, angle=0.0)
    microscope = SimulatedMicroscope(World(sizes, FLAT), 0)
    microscope.tilt(0.1)
    start = microscope.stage.pose(microscope.time).translation
    minute = microscope.stage.pose(microscope.time + 30.0).translation
    last = microscope.stage.pose(microscope.time + 1e5).translation
    np.testing.assert_allclose(minute - start, (last - start) * (1 - np.exp(-1)), rtol=1e-9)
    microscope.tilt(0.2)
    again = microscope.stage.pose(microscope.time).translation
    microscope.tilt(0.1)
    back = microscope.stage.pose(microscope.time).translation
    np.testing.assert_allclose(again, start, atol=1e-9)
    assert np.hypot(*(back - start)[:2]) > 100.0


def test_a_seed_is_one_stage_however_often_it_is_looked_at():
    places = []
    for looks in (1, 3):
        microscope = SimulatedMicroscope(HARSH, 7)
        for angle in (0.0, 0.05, -0.05):
            microscope.tilt(angle)
            for _ in range(looks):
                microscope.scan("track")
            places.append(microscope.stage.pose(1e6).translation)
    np.testing.assert_array_equal(places[:3], places[3:])


def test_a_copy_of_a_microscope_goes_on_as_the_original():
    microscope = SimulatedMicroscope(HARSH, 1)
    first = microscope.scan("record")
    twin, twins_first = pickle.loads(pickle.dumps((microscope, first)))
    values = []
    for one, start in ((microscope, first), (twin, twins_first)):
        one.tilt(0.05)
        values.append(one.displacement(one.scan("track"), start).value)
    assert values[0] == values[1]


def test_failures_are_errors_of_their_kind():
    faults = MicroscopeFaults(
        valve_closed=((0.0, 10.0),),
        dewar_filling=((20.0, 30.0),),
        angles_refused=((0.9, 1.1),),
        lost_before=frozenset({1}),
        lost_after=frozenset({2}),
    )
    microscope = SimulatedMicroscope(replace(EXACT, faults=faults), 0)
    with pytest.raises(errors.ValveClosed, match="valve"):
        microscope.scan("record")
    microscope.wait(15.0)
    microscope.scan("record")
    with pytest.raises(errors.DewarFilling, match="dewar"):
        microscope.scan("record")
    microscope.wait(100.0)
    with pytest.raises(errors.StageRefused, match=r"57\.3°"):
        microscope.tilt(1.0)
    assert microscope.report().angle_rad == 0
    with pytest.raises(errors.ConnectionLost):
        microscope.scan("record")
    assert microscope.report().recorded == 1
    microscope.scan("record")
    with pytest.raises(errors.ConnectionLost):
        microscope.scan("record")
    assert microscope.report().recorded == 3
    microscope.scan("record")
    with pytest.raises(errors.ShiftLimit, match=r"16\.00 µm"):
        microscope.shift(160_000.0, 0.0)
    assert microscope.report().shift_angstrom == (0.0, 0.0)


def test_a_bar_of_the_grid_makes_images_dark_and_without_a_shift():
    shape = replace(FLAT, clear=(-0.5, 0.8))
    microscope = SimulatedMicroscope(World(EXACT_STAGE, shape), 0)
    first = microscope.scan("record")
    microscope.tilt(-0.6)
    dark = microscope.scan("record")
    assert dark.mean_count < 0.2 * first.mean_count
    assert np.isinf(microscope.displacement(dark, first).sigma)
    assert np.isinf(dark.underfocus_sigma_angstrom)


def test_dose_moves_the_film():
    shape = replace(FLAT, motion=20.0)
    microscope = SimulatedMicroscope(World(EXACT_STAGE, shape), 0, NOISELESS)
    scans = [microscope.scan("record") for _ in range(3)]
    one = np.array(microscope.displacement(scans[1], scans[0]).value)
    two = np.array(microscope.displacement(scans[2], scans[0]).value)
    assert np.hypot(*one) > 1.0
    np.testing.assert_allclose(two, 2 * one, rtol=1e-3)


def test_time_passes_on_a_clock_of_its_own():
    microscope = exact()
    microscope.tilt(np.deg2rad(3.0))
    microscope.scan("record")
    microscope.scan("track")
    microscope.wait(5.0)
    assert microscope.report().time_s == pytest.approx(3 + 3 + 8 + 2 + 5)
