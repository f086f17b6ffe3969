"""`jaxptycho tracking`: the report on recorded series, and its refusals."""

import csv
import json

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner

from jaxptycho.acquisition.log_report import LogReport
from jaxptycho.acquisition.tilt_log import TiltLog
from jaxptycho.cli.main import app

RUN = CliRunner()


def shifted(drift=2.0, jump=0.0):
    """Log of 21 tilts, 60 s apart, that drifts along the axis [Å/s] and jumps after the 15th."""
    angle = np.deg2rad(np.arange(0.0, 63.0, 3.0))
    time = 60.0 * np.arange(21)
    noise = np.random.default_rng(0).normal(0, 30.0, (21, 2))
    shift = noise + np.stack([drift * time, 5e3 * np.sin(angle)], -1)
    shift[15:] += jump
    none = np.full(21, np.nan)
    return TiltLog(angle, shift, True, none, none, np.stack([none, none], -1), time)


def test_drift_along_the_axis_is_found():
    rows = LogReport(shifted(), 0.0).rows()
    assert float(rows["drift along the axis"].split()[0]) == pytest.approx(12.0, rel=0.03)
    assert rows["time"] == "20.0 min, 60 s a tilt"
    assert rows["target lost"] == "never"
    assert "underfocus" not in rows


def test_a_jump_is_reported_as_a_loss():
    report = LogReport(shifted(jump=2e4), 0.0)
    assert report.filter.lost.tolist() == [False] * 15 + [True] * 6
    assert "the first at 45.00° (tilt 15 of the series)" in report.rows()["target lost"]


def test_report_of_a_recorded_series(data_dir, tmp_path):
    log = data_dir("tilt_logs/aretomo3_L1_ts_001.mrc.mdoc")
    done = RUN.invoke(app, ["tracking", str(log), "--out", str(tmp_path / "t"), "--json"])
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert "the first at 41.99°" in rows["target lost"]
    assert rows["tilts"] == "41, -60.0° to 60.0° by 3.0°"
    assert imread(tmp_path / "t" / "tracking.png").shape[2] == 4
    with open(tmp_path / "t" / "tracking.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert next(row["tilt_deg"] for row in table if row["lost"] == "1") == "41.9929"


def test_bad_logs_end_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\nImageShift = 0 0\n")
    section = "[ZValue = {0}]\nTiltAngle = {0}\n"
    (tmp_path / "none.mdoc").write_text(section.format(0) + section.format(3))
    (tmp_path / "noise.mdoc").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "table.csv").write_text("1,2,3\n4,5,6\n")
    expected = {
        "one.mdoc": "has 1 tilts; an .mdoc",
        "none.mdoc": "has no angle or image shift of 2 of 2 tilts",
        "noise.mdoc": "has 0 tilts; an .mdoc",
        "table.csv": "is no table of Tomography 5; ten columns are required",
        "nowhere.mdoc": "there is no file nowhere.mdoc; check the path",
    }
    for name, sentence in expected.items():
        done = RUN.invoke(app, ["tracking", name])
        assert done.exit_code == 2
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*-tracking"))
