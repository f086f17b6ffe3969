"""Long runs: a line an epoch, run.log, the progress of a run from outside, more epochs."""

import os
import time

import pytest

from jaxptycho.jobs.describe import describe
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.writing import write_job
from jaxptycho.runs.folder import write_history
from jaxptycho.runs.progress import EpochLines, Listeners, RunLog, screen_listener, time_left
from jaxptycho.runs.state import Row

ROWS = [
    Row(1, "refine", 3.0, None, 9.0),
    Row(2, "refine", 2.0, 2.5, 2.0),
    Row(3, "m", 1.5, 2.25, 2.0),
]


@pytest.fixture
def run(tmp_path):
    """Folder of a run of 50 epochs in its third."""
    job = make_job({"data": {"file": "scan.h5"}, "step": [{"kind": "refine", "epochs": 50}]})
    (tmp_path / "run.toml").write_text(write_job(job))
    write_history(tmp_path / "history.csv", ROWS)
    return tmp_path


def test_every_epoch_is_a_line_on_what_is_no_terminal(tmp_path, capsys):
    log = RunLog(tmp_path / "run.log")
    assert not (tmp_path / "run.log").exists()
    with Listeners(screen_listener(), log) as both:
        both.begin("refine", 50, 64, 0)
        both.batch(16)
        both.say("rates found")
        for row in ROWS:
            both.epoch(row)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["refine: 64 patterns, 50 epochs", "rates found"]
    assert lines[2] == "refine epoch 1/50  loss 3  9 s  7 min left"
    assert lines[4] == "m epoch 3/50  loss 1.5  held out 2.25  2 s  94 s left"
    written = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in written] == lines
    assert isinstance(screen_listener(), EpochLines)


def test_the_time_left_is_that_of_the_last_epochs():
    assert time_left([100.0, 2.0, 2.0], 10) == "20 s"
    assert time_left([60.0], 10) == "10 min"
    assert time_left([], 10) == "an unknown time"


def test_a_run_under_way_says_how_far_it_is(run):
    rows = describe(run)
    assert rows["progress"].startswith("epoch 3 of at most 50, loss 1.5, held-out 2.25, at most ")
    assert "if it no longer runs" not in rows
    old = time.time() - 3600
    os.utime(run / "history.csv", (old, old))
    assert describe(run)["if it no longer runs"] == f"jaxptycho resume {run}"


def test_more_epochs_are_added(run):
    assert read_job(run / "run.toml", ["step.0.epochs=+20"]).step[0].epochs == 70
    assert read_job(run / "run.toml", ["step.0.epochs=20"]).step[0].epochs == 20
