"""`jaxptycho acquire`: jobs, a simulated series, its resumption, and refusals."""

import json
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho.acquisition import read_tilt_log
from jaxptycho.acquisition.journal import read_journal
from jaxptycho.acquisition.microscopes.fake_serialem import FakeSerialEM, fake_module
from jaxptycho.acquisition.microscopes.simulated import GENTLE, GENTLE_CAMERA, SimulatedMicroscope
from jaxptycho.cli.main import app
from jaxptycho.jobs.acquire_job import read_acquire_job

RUN = CliRunner()
JOB = """
[microscope]
dose_per_a2 = 2.5
[tilts]
lowest_deg = -3
highest_deg = 6
[[target]]
name = "one"
x_um = 0
y_um = 0
[[target]]
name = "two"
x_um = 2.0
y_um = -4.0
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


def refused(*words):
    """Only line of the error of a command."""
    done = RUN.invoke(app, ["acquire", *map(str, words)])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_job_becomes_a_plan_in_angstroms(job):
    read = read_acquire_job(job)
    plan = read.plan()
    np.testing.assert_allclose(np.rad2deg(plan.angles), [0, 3, -3, 6])
    np.testing.assert_allclose(plan.targets, [[0, 0], [2e4, -4e4]])
    assert read.limits().shift_limit == 150_000.0


def test_a_simulated_series_has_its_files(job):
    done = RUN.invoke(app, ["acquire", "job.toml", "--simulate"])
    assert done.exit_code == 0, done.output
    assert "tilt 4 of 4, +6.0°, 2 targets" in done.stdout
    assert "8 scans of 2 targets at 4 tilts" in done.stdout
    log = read_tilt_log("job-series/two.mdoc")
    np.testing.assert_allclose(np.rad2deg(log.angle), [0, 3, -3, 6], atol=0.05)
    np.testing.assert_allclose(log.shift[0], [2e4, -4e4], atol=1.0)
    assert log.shift_is_of_specimen
    progress = json.loads((job.parent / "job-series/progress.json").read_text())
    assert progress["finished"]
    assert [target["exposed"] for target in progress["targets"]] == [4, 4]
    assert "job-series exists" in refused("job.toml", "--simulate")
    again = RUN.invoke(app, ["acquire", "job.toml", "--simulate", "--resume"])
    assert again.exit_code == 0
    assert "8 scans" in again.stdout
    assert "is simulated; give --simulate" in refused("job.toml", "--resume")


def test_a_simulated_series_is_resumed_where_it_was_killed(job, monkeypatch):
    class Killed(BaseException):
        pass

    scan = SimulatedMicroscope.scan

    def killed(self, kind):
        if self.recorded == 5:
            raise Killed
        return scan(self, kind)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedMicroscope, "scan", killed)
        with pytest.raises(Killed):
            RUN.invoke(app, ["acquire", "job.toml", "--simulate"], catch_exceptions=False)
    done = RUN.invoke(app, ["acquire", "job.toml", "--simulate", "--resume"])
    assert done.exit_code == 0, done.output
    exposed = [
        (event["target"], event["tilt"])
        for event in read_journal("job-series/journal.jsonl")
        if event["event"] == "exposed"
    ]
    assert sorted(exposed) == [(i, k) for i in range(2) for k in range(4)]


def test_through_serialem_and_stopped_there(job, monkeypatch):
    fake = FakeSerialEM(SimulatedMicroscope(GENTLE, 0, GENTLE_CAMERA))
    monkeypatch.setitem(sys.modules, "serialem", fake_module(fake))
    fake.busy = True
    assert "SerialEM at 127.0.0.1:48888 does not answer" in refused("job.toml")
    fake.busy = False
    scan = SimulatedMicroscope.scan

    def stopped(self, kind):
        fake.stopped = self.recorded == 3
        return scan(self, kind)

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedMicroscope, "scan", stopped)
        assert "SerialEM was stopped (User STOP); resume with --resume" in refused("job.toml")
    fake.stopped = False
    done = RUN.invoke(app, ["acquire", "job.toml", "--resume"])
    assert done.exit_code == 0, done.output
    assert fake.microscope.recorded == 8
    assert fake.microscope.blanked


def test_bad_jobs_end_with_one_sentence(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "serialem", None)
    assert "there is no module serialem" in refused("job.toml")
    assert "there is no file nowhere.toml" in refused("nowhere.toml")
    mistakes = {
        "y_um = -4.0": ("y_um = -19.0", "1 of 2 targets are beyond the image-shift limit of 15 µm"),
        'name = "two"': ('name = "one"', "a name of its own is required for each"),
        "lowest_deg = -3": ("lowest_deg = 3", "lowest ≤ start ≤ highest"),
        "x_um = 2.0": ("x_mm = 2.0", "there is no key target.1.x_mm; did you mean"),
        "[tilts]": ("[tilts", "is not valid TOML"),
    }
    for right, (wrong, sentence) in mistakes.items():
        job.write_text(JOB.replace(right, wrong))
        done = RUN.invoke(app, ["acquire", "job.toml", "--simulate"])
        assert done.exit_code == 2
        assert sentence in done.stderr
    job.write_text("[tilts]\n")
    assert "target is missing; give targets" in refused("job.toml", "--simulate")
