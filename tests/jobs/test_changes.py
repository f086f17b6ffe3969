"""Runs that go on with a changed job, or from another place: applied, or refused with the reason."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from test_run import Interrupting
from typer.testing import CliRunner

from jaxptycho import Dataset, read
from jaxptycho.cli.main import app
from jaxptycho.io.native import write_native
from jaxptycho.io.results import load_attributes, load_history
from jaxptycho.jobs.changes import Reached, differences, require_applicable
from jaxptycho.jobs.reading import beside, make_job, read_job
from jaxptycho.jobs.runner import Runner, resume, start
from jaxptycho.jobs.writing import write_job

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = {"kind": "refine", "epochs": 2, "batch": 16, "rates": {"specimen": 5e-2, "probe": 5e-3}}


@pytest.fixture(scope="module")
def begun(measurement, tmp_path_factory):
    """A folder with a measurement, a job of two steps beside it, and its run after the first epoch."""
    folder = tmp_path_factory.mktemp("changes") / "project"
    (folder / "data").mkdir(parents=True)
    shutil.copy(measurement, folder / "data" / "scan.h5")
    values = {
        "data": {"file": "data/scan.h5", "hold_out": 0.1},
        "step": [SMALL, SMALL | {"name": "later", "epochs": 1}],
        "run": {"devices": 1, "checkpoint_every": 1},
    }
    (folder / "job.toml").write_text(write_job(make_job(values)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "draw", lambda *given: None)
        outcome = start(read_job(folder / "job.toml"), folder / "run", Interrupting(after=1))
    assert len(outcome.history) == 1
    return folder


@pytest.fixture
def project(begun, tmp_path):
    """A copy of this folder, elsewhere."""
    return Path(shutil.copytree(begun, tmp_path / "project"))


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_settings_are_applied_to_what_is_to_come(project):
    folder = project / "run"
    settings = [
        "--set",
        "step.0.epochs=3",
        "--set",
        "step.1.rates.specimen=1e-2",
        "--set",
        "step.1.batch=32",
    ]
    result = run("run", project / "job.toml", "--out", folder, "--resume", *settings)
    assert result.exit_code == 0, result.output
    assert [*load_history(folder / "result.h5")["step"]] == ["refine"] * 3 + ["later"]
    job = read_job(folder / "run.toml")
    assert (job.step[0].epochs, job.step[1].batch, job.step[1].rates["specimen"].rate) == (
        3,
        32,
        1e-2,
    )
    assert make_job(tomllib.loads(load_attributes(folder / "result.h5")["job"])) == job

    more = run("resume", folder, "--set", "step.1.epochs=2")  # a finished run goes on
    assert more.exit_code == 0, more.output
    assert len(load_history(folder / "result.h5")["step"]) == 5
    before = (folder / "run.toml").read_bytes()
    for setting, words in {
        "step.0.epochs=9": "step.0 is over, and step.1 has begun",
        "step.1.epochs=1": "step.1 has run 2 epochs",
        "step.1.rates.specimen=1e-3": "has run all of its 2 epochs; give it more",
    }.items():
        assert words in refused("resume", folder, "--set", setting)
    assert (folder / "run.toml").read_bytes() == before


FIXED = {
    "data.fraction=0.5": "data.fraction cannot be applied to a run under way",
    "data.hold_out=0.2": "data.hold_out cannot",
    "probe.modes=3": "probe.modes cannot",
    "run.seed=4": "decided which shots were held out",
    "run.out=elsewhere": "already in its folder",
    "step.0.batch=8": "step.0 is under way with another value",
    "step.0.slices=2": "step.0 is under way",
    "step.0.rates.scan=1e-2": "its optimiser or its constraints",
    "step.0.epochs=1.5": "expected an integer",
    "step.7.epochs=1": "there is no step.7",
}


def test_what_makes_the_checkpoint_worthless_is_refused(project):
    folder = project / "run"
    kept = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for setting, words in FIXED.items():
        assert words in refused("resume", folder, "--set", setting)
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == kept


def test_the_keys_of_each_place_are_open_or_not():
    before = make_job({"data": {"file": "x.h5"}, "step": [SMALL, SMALL, SMALL]})

    def changed(**sections):
        job = make_job({"data": {"file": "x.h5"}, "step": [SMALL, SMALL, SMALL]} | sections)
        return differences(before, job), job

    for sections in (
        {"run": {"devices": 2, "budget_gib": 1.0}},
        {"figures": {"every": 3}},
        {"data": {"file": "moved.h5"}},
        {"step": [SMALL, SMALL | {"epochs": 9}, SMALL]},
        {"step": [SMALL, SMALL | {"loss": "poisson"}, SMALL | {"modes": 2}]},
        {"step": [SMALL, SMALL]},
    ):
        keys, job = changed(**sections)
        assert keys
        require_applicable(keys, job, Reached(1, 1, True))
    require_applicable(
        *changed(step=[SMALL | {"modes": 2}]), Reached(0, 0, False)
    )  # nothing has begun
    with pytest.raises(ValueError, match=r"removes step\.1"):
        require_applicable(*changed(step=[SMALL]), Reached(1, 0, True))


def test_a_job_that_changed_behind_a_run_is_warned_of(project):
    path = project / "job.toml"
    path.write_text(path.read_text().replace("batch = 16", "batch = 8"))
    with pytest.warns(
        UserWarning, match=r"step\.0\.batch, step\.1\.batch another value than the run"
    ):
        result = run("run", path, "--out", project / "run", "--resume")
    assert result.exit_code == 0
    assert read_job(project / "run" / "run.toml").step[0].batch == 16


def test_a_moved_project_goes_on(project, tmp_path):
    assert 'file = "../data/scan.h5"' in (project / "run" / "run.toml").read_text()
    moved = tmp_path / "elsewhere" / "deeper"
    moved.parent.mkdir()
    project.rename(moved)
    assert resume(moved / "run").finished
    assert read_job(moved / "run" / "run.toml").data.file == str(moved / "data" / "scan.h5")


def test_a_moved_run_names_the_file_that_it_misses(project, tmp_path, monkeypatch):
    moved = tmp_path / "far" / "away" / "run"
    shutil.copytree(project / "run", moved)
    line = refused("resume", moved)
    assert f"there is no file {tmp_path / 'far' / 'away' / 'data' / 'scan.h5'}" in line
    assert f"jaxptycho resume {moved} --set data.file=PATH" in line
    monkeypatch.chdir(project)
    result = run("resume", moved, "--set", "data.file=data/scan.h5")  # as the shell completes it
    assert result.exit_code == 0, result.output
    assert read_job(moved / "run.toml").data.file == str(project / "data" / "scan.h5")


def test_files_with_nothing_in_common_stay_absolute(tmp_path):
    job = make_job(
        {"data": {"file": "/measured/scan.h5"}, "detector": {"mtf_file": str(tmp_path / "mtf.txt")}}
    )
    near = beside(job, tmp_path / "run")
    assert near.data.file == "/measured/scan.h5"
    assert near.detector.mtf_file == "../mtf.txt"


def test_another_measurement_is_no_moved_file(project, tmp_path):
    data = read(project / "data" / "scan.h5")
    other = tmp_path / "other.h5"
    fewer = np.random.default_rng(0).binomial(np.asarray(data.counts[0][:]).astype(int), 0.5)
    write_native(other, Dataset(fewer, data.positions[0], data.grid, about=data.about))
    assert "other.h5 holds another measurement" in refused(
        "resume", project / "run", "--set", f"data.file={other}"
    )


def test_a_step_that_ended_by_itself_goes_on_when_it_is_given_more_epochs(measurement, tmp_path):
    values = {"data": {"file": str(measurement)}, "step": [{"kind": "refine", "epochs": 2}]}
    start(make_job(values | {"run": {"devices": 1}}), tmp_path / "run")
    result = run("resume", tmp_path / "run", "--set", "step.0.epochs=4")
    assert result.exit_code == 0, result.output
    assert len(load_history(tmp_path / "run" / "result.h5")["step"]) == 4
