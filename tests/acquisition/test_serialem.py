"""The adapter of SerialEM on its simulated module: commands, units, refusals, and whole series."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from jaxptycho.acquisition.microscopes.fake_serialem import FakeSerialEM, SEMerror, fake_module
from jaxptycho.acquisition.microscopes.microscope import (
    ConnectionLost,
    DewarFilling,
    MicroscopeControl,
    MicroscopeError,
    ShiftLimit,
    StageRefused,
    ValveClosed,
)
from jaxptycho.acquisition.microscopes.serialem import connect
from jaxptycho.acquisition.microscopes.serialem_signatures import SIGNATURES
from jaxptycho.acquisition.microscopes.simulated import (
    GENTLE,
    GENTLE_CAMERA,
    MicroscopeFaults,
    SimulatedMicroscope,
)
from jaxptycho.acquisition.plan import Plan, dose_symmetric
from jaxptycho.acquisition.schedule import Acquisition
from jaxptycho.acquisition.station import SpecimenFrame, Station


def session(faults=None):
    """Simulated microscope, fake of SerialEM, and adapter."""
    world = GENTLE if faults is None else replace(GENTLE, faults=faults)
    fake = FakeSerialEM(SimulatedMicroscope(world, 0, GENTLE_CAMERA))
    return fake, connect(load=lambda name: fake_module(fake))


def test_every_command_of_the_list_exists_and_checks_its_arguments():
    fake, _ = session()
    assert len(SIGNATURES) > 60
    failures = []
    for name, keys in SIGNATURES.items():
        with pytest.raises(TypeError, match=f"{name} takes"):
            fake.run(name, (1,) * (len(keys) + 1))
        kinds = {"D": 0.5, "I": 1, "S": "A"}
        wrong = [[] if key.upper() != "S" else 3 for key in keys]
        if wrong:
            with pytest.raises(TypeError, match=name):
                fake.run(name, tuple(wrong))
        if name in ("Exit", "GetVariable", "OpenNewFile", "AlignTo", "Copy"):
            continue
        try:
            result = fake.run(name, tuple(kinds[key] for key in keys if key.isupper()))
        except SEMerror as error:
            failures.append(str(error))
            continue
        flat = result if isinstance(result, tuple) else (result,)
        assert all(value is None or isinstance(value, float | str) for value in flat)
    assert set(failures) <= {"the buffer A is empty", "no file is open"}


def test_units_and_signs_reach_the_microscope():
    fake, sem = session()
    assert isinstance(sem, MicroscopeControl)
    sem.tilt(np.deg2rad(6.0))
    assert sem.report().angle_rad == pytest.approx(np.deg2rad(6.0), abs=2e-3)
    sem.shift(1.5e4, -2.0e4)
    assert fake.microscope.report().shift_angstrom == pytest.approx((1.5e4, -2.0e4))
    sem.focus(3_000.0)
    assert fake.microscope.optics.underfocus == pytest.approx(3_000.0)
    assert fake.run("ReportDefocus", ()) == pytest.approx(-0.3)
    before = sem.report().stage_angstrom
    sem.move(1e4, 0.0, -5e3)
    np.testing.assert_allclose(
        np.subtract(sem.report().stage_angstrom, before), [1e4, 0, -5e3], atol=300.0
    )
    time = sem.report().time_s
    sem.wait(12.0)
    assert sem.report().time_s - time == pytest.approx(12.0)
    assert sem.report().shift_limit_angstrom == 150_000.0


def test_nominal_underfocus_is_what_changes_are_counted_from():
    fake, _ = session()
    sem = connect(load=lambda name: fake_module(fake), underfocus_um=2.0)
    sem.focus(0.0)
    assert fake.run("ReportDefocus", ()) == pytest.approx(-2.0)
    assert sem.report().underfocus_angstrom == pytest.approx(0.0)


def test_shift_between_scans_is_that_of_the_specimen():
    _, sem = session()
    first = sem.scan("track")
    sem.shift(400.0, -250.0)
    second = sem.scan("track")
    apart = sem.displacement(second, first)
    np.testing.assert_allclose(apart.value, [-400.0, 250.0], atol=150.0)
    assert apart.sigma == pytest.approx(20.0, rel=0.01)


def test_exposures_are_counted_where_a_killed_process_finds_them():
    fake, sem = session()
    assert sem.report().recorded == 0
    sem.scan("record")
    sem.scan("track")
    assert connect(load=lambda name: fake_module(fake)).report().recorded == 1


def test_limits_and_states_become_sentences():
    fake, sem = session(
        MicroscopeFaults(
            valve_closed=((1_000.0, 2_000.0),),
            dewar_filling=((3_000.0, 4_000.0),),
            angles_refused=((1.0, 2.0),),
        )
    )
    with pytest.raises(ShiftLimit, match=r"image shift of 20.00 µm is beyond"):
        sem.shift(2e5, 0.0)
    with pytest.raises(StageRefused, match=r"does not go to 70.0°"):
        sem.tilt(np.deg2rad(70.0))
    fake.microscope.time = 1_500.0
    with pytest.raises(ValveClosed, match="valve"):
        sem.scan("record")
    fake.microscope.time = 3_500.0
    with pytest.raises(DewarFilling, match="dewar"):
        sem.scan("record")
    assert sem.report().recorded == 0
    fake.microscope.time = 5_000.0
    fake.busy = True
    with pytest.raises(ConnectionLost, match=r"does not take commands .*resume with --resume"):
        sem.report()
    fake.busy = False
    fake.stopped = True
    with pytest.raises(MicroscopeError, match=r"SerialEM was stopped .User STOP."):
        sem.tilt(0.0)
    sem.blank()


def test_without_serialem_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "serialem", None)
    with pytest.raises(MicroscopeError, match="no module serialem"):
        connect()
    fake, _ = session()
    fake.busy = True
    with pytest.raises(ConnectionLost, match="does not answer"):
        connect(load=lambda name: fake_module(fake))


def test_a_series_through_serialem(tmp_path):
    fake, sem = session()
    targets = np.array([[0.0, 0.0], [3e4, -5e4]])
    plan = Plan(np.deg2rad(dose_symmetric(0, -6, 6, 3)), targets)
    station = Station(sem, SpecimenFrame(), tmp_path / "scans", sem.displacement)
    state = Acquisition(plan, station, tmp_path).run()
    assert fake.microscope.recorded == 10
    assert len(state.scans) == 10
    assert fake.microscope.blanked
    assert not state.ended
    again = Station(sem, SpecimenFrame(), tmp_path / "scans", sem.displacement)
    stored = again.load("scan-002-01")
    assert stored == again.load("scan-002-01")
    np.testing.assert_allclose(stored.shift, state.shifts[1, 2])
    assert again.load("scan-009-01") is None
