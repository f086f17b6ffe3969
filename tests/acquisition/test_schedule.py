"""Acquisition of a series by its schedule: once each, on target, after any kill, around failures."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from small_stage import SmallStage

from jaxptycho.acquisition import tomogram_poses
from jaxptycho.acquisition.microscopes.microscope import MicroscopeError, NotReady, Refused
from jaxptycho.acquisition.plan import Plan, dose_symmetric
from jaxptycho.acquisition.schedule import Acquisition, Rules

TARGETS = np.array([[0.0, 0.0], [3e4, -5e4], [-6e4, 7e4]])
PLAN = Plan(np.deg2rad(dose_symmetric(0, -9, 9, 3)), TARGETS)
ALL = sorted(f"scan-{k:03d}-{i:02d}" for k in range(7) for i in range(3))


class Killed(BaseException):
    """A process that ends in the middle."""


def acquire(folder, stage, plan=PLAN, rules=None, listener=lambda series, event: None):
    return Acquisition(plan, stage, folder, rules=rules, listener=listener)


def events(series, kind):
    return [event for event in series.journal.events if event["event"] == kind]


def off_target(series, stage):
    """Distances of the exposures from what the first scans of the targets show [Å]."""
    places = {
        (i, k): stage.place(i, series.plan.angles[k])[:2] - shift
        for (i, k), shift in series.state.shifts.items()
    }
    return np.array([np.hypot(*(places[key] - places[key[0], 0])) for key in places])


@pytest.mark.parametrize("seed", [0, 1])
def test_every_target_is_exposed_once_and_on_its_place(tmp_path, seed):
    stage = SmallStage(TARGETS, seed)
    ends = []

    def forecast(series, event):
        if event == "tracked":
            ends.append(series.seconds() + series.state.seconds_left())

    series = acquire(tmp_path, stage, listener=forecast)
    state = series.run()
    assert sorted(stage.made) == ALL
    assert state.finished
    assert not stage.beam
    assert not state.ended
    assert off_target(series, stage).max() < 150.0
    np.testing.assert_allclose(ends[2:], stage.seconds(), rtol=0.05)


def test_a_series_that_is_killed_again_and_again_misses_nothing(tmp_path):
    whole = acquire(tmp_path / "whole", SmallStage(TARGETS, pair=2.0))
    whole.run()
    rng = np.random.default_rng(5)
    stage = SmallStage(TARGETS, pair=2.0)
    kills = 0
    while True:
        left = int(rng.integers(2, 13))

        def dying(series, event):
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        series = acquire(tmp_path / "killed", stage, listener=dying)
        try:
            series.run()
            break
        except Killed:
            kills += 1
    assert kills > 8
    assert sorted(stage.made) == ALL
    poses = [
        tomogram_poses(
            s.state.belief, s.state.exposures, i, np.array([s.state.shifts[i, k] for k in range(7)])
        )[:, 3:]
        for s in (whole, series)
        for i in range(3)
    ]
    # what an exposure is away from its target, whatever the prediction was
    true = [
        [stage.place(i, PLAN.angles[k])[:2] - s.state.shifts[i, k] for k in range(7)]
        for s in (whole, series)
        for i in range(3)
    ]
    error = np.array(poses) - true
    error -= error[:, :1]
    assert np.abs(error).max() < 10.0


@pytest.mark.parametrize("moment", ["record", "exposed"])
def test_a_kill_in_an_exposure_spends_no_second_dose(tmp_path, moment):
    stage = SmallStage(TARGETS)

    def kill(name):
        if name == "scan-001-01":
            raise Killed

    stage.faults = {moment: kill}
    with pytest.raises(Killed):
        acquire(tmp_path, stage).run()
    assert not stage.beam
    stage.faults = {}
    series = acquire(tmp_path, stage)
    series.run()
    assert sorted(stage.made) == ALL
    lost = [(event["target"], event["tilt"]) for event in events(series, "skip")]
    assert lost == ([(1, 1)] if moment == "exposed" else [])


def test_a_stage_that_was_moved_after_a_kill_is_found_again(tmp_path):
    stage = SmallStage(TARGETS)

    def dying(series, event):
        if event == "exposed" and series.state.tilt == 3:
            raise Killed

    with pytest.raises(Killed):
        acquire(tmp_path, stage, listener=dying).run()
    stage.here = 0.0
    series = acquire(tmp_path, stage)
    series.run()
    assert [event["tilt"] for event in events(series, "tilt")].count(3) == 2
    assert sorted(stage.made) == ALL
    assert off_target(series, stage).max() < 150.0


def test_another_plan_does_not_continue_a_journal(tmp_path):
    acquire(tmp_path, SmallStage(TARGETS)).run()
    other = replace(PLAN, angles=PLAN.angles + 0.1)
    with pytest.raises(ValueError, match="the journal is of another plan"):
        acquire(tmp_path, SmallStage(TARGETS), other).run()


def test_a_dark_image_ends_a_branch(tmp_path):
    stage = SmallStage(TARGETS)
    stage.faults = {
        "image": lambda scan: (
            replace(scan, mean=5.0) if scan.name.endswith("-02") and scan.angle > 0.1 else scan
        )
    }
    series = acquire(tmp_path, stage)
    series.run()
    assert series.state.ended == {(2, False): "dark image"}
    assert sorted(stage.made) == [name for name in ALL if name != "scan-005-02"]


def test_limits_of_the_image_shift_end_a_branch(tmp_path):
    stage = SmallStage(TARGETS)
    series = acquire(tmp_path, stage, rules=Rules(shift_limit=8e4))
    series.run()
    assert set(series.state.ended) == {(2, False), (2, True)}
    assert "beyond the limit of 8.00 µm" in series.state.ended[2, True]
    assert len(stage.made) == 14

    def limit(shift):
        if np.hypot(*shift) > 5e4:
            raise Refused("the deflectors are at their limit")

    stage = SmallStage(TARGETS)
    stage.faults = {"aim": limit}
    acquire(tmp_path / "own", stage).run()
    assert sorted(stage.made) == [name for name in ALL if name[-1] == "0"]


def test_a_stage_that_refuses_an_angle_leaves_the_other_branch(tmp_path):
    stage = SmallStage(TARGETS)

    def refuse(angle):
        if angle > 0.1:
            raise Refused("the stage does not go to 6°")

    stage.faults = {"tilt": refuse}
    series = acquire(tmp_path, stage)
    series.run()
    assert sorted(stage.made) == [name for name in ALL if name[5:8] not in ("004", "005")]


def test_a_microscope_that_is_not_ready_is_waited_for(tmp_path):
    stage = SmallStage(TARGETS)

    def filling(name):
        if 100.0 < stage.now < 600.0:
            raise NotReady("a dewar is being filled")

    stage.faults = {"record": filling}
    series = acquire(tmp_path, stage)
    series.run()
    assert sorted(stage.made) == ALL
    assert {event["why"] for event in events(series, "waiting")} == {"a dewar is being filled"}
    stage = SmallStage(TARGETS)
    stage.faults = {"record": filling}
    with pytest.raises(MicroscopeError, match="being filled; resume with --resume"):
        acquire(tmp_path / "b", stage, rules=Rules(patience=60.0)).run()
    assert not stage.beam


def test_a_false_shift_is_found_out_by_a_second_look(tmp_path):
    stage = SmallStage(TARGETS)
    true = stage.displacement

    def locked_to_a_lattice(scan, other):
        apart = true(scan, other)
        wrong = 4_000.0 if scan.name == "scan-004-01" else 0.0
        return replace(apart, value=(apart.value[0] + wrong, apart.value[1]))

    stage.displacement = locked_to_a_lattice
    series = acquire(tmp_path, stage)
    series.run()
    assert [(e["target"], e["tilt"]) for e in events(series, "rescan")] == [(1, 4)]
    assert sorted(stage.made) == ALL
    assert off_target(series, stage).max() < 150.0


def test_a_jump_of_the_stage_is_confirmed_and_followed(tmp_path):
    stage = SmallStage(TARGETS)
    still = stage.place
    stage.place = lambda i, angle: still(i, angle) + (0.09 < angle < 0.13) * np.array([9e3, 0, 0])
    series = acquire(tmp_path, stage)
    series.run()
    assert [e["tilt"] for e in events(series, "track") if e.get("confirmed")] == [4]
    assert off_target(series, stage).max() < 150.0
    assert sorted(stage.made) == ALL


def test_a_target_that_is_nowhere_ends_alone(tmp_path):
    stage = SmallStage(TARGETS)
    stage.faults = {
        "image": lambda scan: (
            replace(scan, image=scan.image * [[0, 1, 1]] + [[-1, 0, 0]])
            if abs(scan.angle) > 0.1 and scan.image[0, 0] == 1
            else scan
        )
    }
    series = acquire(tmp_path, stage)
    series.run()
    assert series.state.ended == {(1, False): "lost", (1, True): "lost"}
    assert off_target(series, stage).max() < 150.0


def test_the_last_target_is_given_up_when_time_runs_out(tmp_path):
    stage = SmallStage(TARGETS)
    series = acquire(tmp_path, stage, rules=Rules(minutes=5.8))
    series.run()
    assert series.state.ended == {(2, False): "late", (2, True): "late"}
    assert stage.seconds() < 348.0
    assert len(stage.made) > 14


def test_a_lost_connection_ends_with_a_sentence_and_resumes(tmp_path):
    stage = SmallStage(TARGETS)

    def gone(shift):
        if stage.now > 150.0:
            raise MicroscopeError("the microscope does not answer")

    stage.faults = {"aim": gone}
    with pytest.raises(MicroscopeError, match="does not answer"):
        acquire(tmp_path, stage).run()
    assert not stage.beam
    stage.faults = {}
    acquire(tmp_path, stage).run()
    assert sorted(stage.made) == ALL


DYING = """
import os, sys
from test_schedule import PLAN, TARGETS, acquire
from small_stage import SmallStage
from pathlib import Path
folder, left = Path(sys.argv[1]), int(sys.argv[2])
def dying(series, event):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
acquire(folder, SmallStage(TARGETS, disk=folder / "disk"), listener=dying).run()
"""


@pytest.mark.slow
def test_a_process_that_is_killed_misses_nothing(tmp_path):
    rng = np.random.default_rng(2)
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.path.join(here, "../helpers"), os.environ["PYTHONPATH"]])
    codes = []
    while not codes or codes[-1]:
        words = [sys.executable, "-c", DYING, str(tmp_path), str(rng.integers(8, 25))]
        done = subprocess.run(words, env=os.environ | {"PYTHONPATH": path}, capture_output=True)
        codes.append(done.returncode)
        assert codes[-1] in (0, -9), done.stderr.decode()
    assert codes.count(-9) > 3
    assert sorted(SmallStage(TARGETS, disk=tmp_path / "disk").made) == ALL


@pytest.mark.slow
def test_seven_targets_at_41_tilts_take_less_than_90_minutes(tmp_path):
    rng = np.random.default_rng(3)
    targets = np.vstack([[0, 0], rng.uniform(-8e4, 8e4, (6, 2))])
    stage = SmallStage(targets, jitter=500.0, pair=50.0)
    plan = Plan(np.deg2rad(dose_symmetric(0, -60, 60, 3)), targets)
    ends = []

    def forecast(series, event):
        if event == "tracked":
            ends.append(series.seconds() + series.state.seconds_left())

    series = acquire(tmp_path, stage, plan, listener=forecast)
    series.run()
    assert stage.seconds() < 90 * 60
    np.testing.assert_allclose(ends[2:], stage.seconds(), rtol=0.05)
    assert len(set(stage.made)) == len(stage.made) == 7 * 41
    assert np.percentile(off_target(series, stage), 90) < 150.0
