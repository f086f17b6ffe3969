"""Tuning by the held-out loss: ranges, a study that is gone on with and shared, ended trials."""

import threading

import pytest
from typer.testing import CliRunner

from jaxptycho.cli.main import app
from jaxptycho.jobs import tune as tuning
from jaxptycho.jobs.runner import Outcome
from jaxptycho.jobs.tune import Range, best, parse_range, tune
from jaxptycho.runs.state import Row, Stopped

JOB = """
[data]
file = "scan.h5"
[[step]]
kind = "refine"
epochs = 12
"""
SLICES = "specimen.slices=2..8"


@pytest.fixture
def job(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(JOB)
    return path


@pytest.fixture
def computed(monkeypatch):
    """Runs whose held-out loss is (slices − 5)² + 1, falling over 12 epochs; the slices they had."""
    pytest.importorskip("optuna")
    slices = []

    def start(job, folder, listener, stop):
        folder.mkdir()
        slices.append(job.specimen.slices)
        history = []
        for epoch in range(1, 13):
            history.append(Row(epoch, "refine", 1.0, (slices[-1] - 5) ** 2 + 1 + 1 / epoch, 0.1))
            listener.epoch(history[-1])
            if why := stop():
                return Outcome(folder, why, {}, None, history)
        return Outcome(folder, "finished", {}, None, history)

    monkeypatch.setattr(tuning, "start", start)
    return slices


def test_ranges_are_read():
    assert parse_range(SLICES) == Range("specimen.slices", 2, 8)
    assert parse_range("probe.defocus_angstrom=-1.5 .. 2") == Range(
        "probe.defocus_angstrom", -1.5, 2
    )
    assert parse_range("step.0.optimiser=adam|awf").choices == ("adam", "awf")


BAD = {
    "specimen.slices": "KEY=LOW..HIGH or KEY=A|B is required",
    "specimen.slices=8..2": "the lower one first",
    "specimen.slices=many..few": "two numbers",
    "data.hold_out=0.1..0.2": "trials are compared by their held-out loss",
    "step.0.loss=poisson|amplitude": "trials are compared by their held-out loss",
}


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_tuned_is_one_sentence(job, text):
    result = CliRunner().invoke(app, ["tune", str(job), "--over", text])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert BAD[text] in line


def test_the_least_held_out_loss_is_found_and_the_study_goes_on(job, tmp_path, computed):
    """Whole numbers are computed one time each; the search ends when there are no others."""
    folder = tmp_path / "study"
    first = tune(job, [SLICES], folder, 3)
    assert len(first) == len(computed) == 3
    found = tune(job, [SLICES], folder, 20)
    assert found[:3] == first
    assert len(computed) == len(set(computed)) <= 7
    assert best(found).values == {"specimen.slices": 5}
    assert best(found).settings == ["specimen.slices=5"]
    table = (folder / "tune.csv").read_text().splitlines()
    assert table[0] == "trial,specimen.slices,held_out,epochs,state"
    assert len(table) == len(found) + 1


def test_a_trial_that_is_behind_ends_early(job, tmp_path, computed, monkeypatch):
    monkeypatch.setattr(tuning, "WARM_UP", 2)
    found = tune(job, [SLICES], tmp_path / "study", 7)
    ended = [trial for trial in found if trial.state == "pruned"]
    assert ended
    assert all(trial.epochs < 12 for trial in ended)
    assert best(found).state == "complete"


def test_two_workers_share_a_study(job, tmp_path, computed):
    over = ["specimen.slices=2..200"]
    work = [threading.Thread(target=tune, args=(job, over, tmp_path / "study", 8)) for _ in "ab"]
    for worker in work:
        worker.start()
    for worker in work:
        worker.join()
    found = tune(job, over, tmp_path / "study", 8)
    assert 8 <= len(found) <= 9  # the other worker may have been at its last
    assert len({trial.number for trial in found}) == len(found) == len(computed)


def test_a_stopped_trial_is_computed_again(job, tmp_path, computed, monkeypatch):
    stopped = monkeypatch.context

    def interrupted(job, folder, listener, stop):
        folder.mkdir()
        return Outcome(folder, "Ctrl-C", {}, None, [])

    with stopped() as patch:
        patch.setattr(tuning, "start", interrupted)
        with pytest.raises(Stopped, match="Ctrl-C"):
            tune(job, [SLICES], tmp_path / "study", 2)
    assert len(tune(job, [SLICES], tmp_path / "study", 2)) == 2


def test_the_command_prints_a_table_and_draws(job, tmp_path, computed):
    out = tmp_path / "study"
    given = ["tune", str(job), "--over", SLICES, "--trials", "3", "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert f"best: jaxptycho run {job} --set specimen.slices=" in result.output
    assert (out / "tune.png").exists()
    again = CliRunner().invoke(app, ["tune", str(job), "--over", SLICES, "--out", str(tmp_path)])
    assert again.exit_code == 2
    assert "holds no study" in again.stderr
