"""Runs: what the folder holds, and that nothing an interruption or a divergence does is lost."""

import csv
import html
import os
import signal
import tomllib
from functools import partial
from types import SimpleNamespace

import equinox as eqx
import jax
import numpy as np
import pytest

from jaxptycho import load, mesh, stacked
from jaxptycho.distributed import device_cache as resident
from jaxptycho.inverse.constraints.volume import support_mask
from jaxptycho.io.results import load_attributes, load_history
from jaxptycho.jobs import build, runner
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import resume, start
from jaxptycho.model import probe_positions
from jaxptycho.runs.progress import ProgressListener
from jaxptycho.runs.state import Diverged


class Interrupting(ProgressListener):
    """Sends a signal to this process after so many batches."""

    def __init__(self, after, number=signal.SIGINT):
        self.left, self.number = after, number

    def batch(self, patterns):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


DRAW = runner.Runner.draw
pytestmark = pytest.mark.usefixtures("undrawn", "quick_to_compile")


@pytest.fixture(autouse=True)
def _small_stacks(monkeypatch):
    monkeypatch.setattr(
        "jaxptycho.runs.batch_source.stacked", partial(stacked, shots=32)
    )  # two of an epoch's four batches at once


@pytest.fixture(scope="module")
def made(measurement, tmp_path_factory):
    return {}


@pytest.fixture
def reference(values, made, tmp_path_factory, monkeypatch):
    """The uninterrupted run with its figures, made once."""
    if not made:
        with monkeypatch.context() as patched:
            patched.setattr(runner.Runner, "draw", DRAW)
            made["outcome"] = start(make_job(values), tmp_path_factory.mktemp("runs") / "reference")
    return made["outcome"]


PICTURES = ("object", "probe", "positions", "patterns", "loss")


def same(one, other):
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def test_a_run_folder_holds_everything(reference, values):
    folder = reference.folder
    assert reference.finished
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints",
        "figures",
        "history.csv",
        "report.html",
        "result.h5",
        "run.log",
        "run.toml",
        "steps",
    ]
    drawn = {p.name for p in (folder / "figures").iterdir() if p.stat().st_size > 5000}
    assert drawn == {f"{name}.png" for name in ("summary", *PICTURES)}
    assert len(list((folder / "checkpoints").iterdir())) == 2

    model = load(folder / "result.h5")
    assert same(model, reference.model)
    assert model.probe.waves.shape[0] == 2  # the modes of the second step
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["refine"] * 3 + ["modes"] * 2
    np.testing.assert_array_equal(
        [float(row["loss"]) for row in rows], load_history(folder / "result.h5")["loss"]
    )
    assert all(float(row["held_out"]) > 0 and float(row["seconds"]) > 0 for row in rows)
    assert float(rows[2]["loss"]) < 0.8 * float(rows[0]["loss"])

    about = load_attributes(folder / "result.h5")
    assert about["E"] == pytest.approx(reference.fit["E"])
    assert 0 < about["R"] < 1
    job = make_job(values)
    chosen = job.model_copy(update={"specimen": job.specimen.model_copy(update={"slices": 1})})
    assert make_job(tomllib.loads(about["job"])) == read_job(folder / "run.toml") == chosen


def test_an_interrupted_run_resumes_to_the_same_result(reference, values, tmp_path):
    folder = tmp_path / "run"
    first = start(make_job(values), folder, Interrupting(after=3))
    assert (first.why, first.finished, len(first.history)) == ("Ctrl-C", False, 1)
    assert load(folder / "result.h5").probe.waves.shape == first.model.probe.waves.shape
    second = resume(folder, Interrupting(after=6, number=signal.SIGTERM))  # inside the second step
    assert (second.why, len(second.history)) == ("SIGTERM", 4)
    third = resume(folder)
    assert third.finished
    assert same(third.model, reference.model)
    assert [row[:4] for row in third.history] == [row[:4] for row in reference.history]
    assert same(resume(folder).model, reference.model)  # a finished run stays as it is


def test_the_report_holds_verdict_fit_pictures_and_job(reference):
    page = (reference.folder / "report.html").read_text(encoding="utf-8")
    assert str(reference.verdict.lines[0]) in page
    assert f"<td>{reference.fit['E']:.4f}</td>" in page
    places = [page.index(f'alt="{name}"') for name in ("summary", "object", "loss")]
    assert places == sorted(places)
    assert page.count("data:image/png;base64,") == 6
    assert html.escape('kind = "refine"') in page
    assert f"<td>{jax.__version__}</td>" in page


def test_a_support_is_that_of_the_model_that_its_step_starts_from(values, tmp_path):
    """The first model is empty; what is left out stays so, on either side of an interruption."""
    rates = {"specimen": 5e-2}
    coarse = {"kind": "refine", "epochs": 1, "batch": 15, "rates": rates}
    support = {
        "kind": "support",
        "blur_angstrom": 0.6,
        "threshold": 0.6,
        "edge_angstrom": 0.0,
        "each_step": True,
    }
    fine = {
        "kind": "refine",
        "name": "fine",
        "epochs": 2,
        "batch": 15,
        "rates": rates,
        "constraint": [support],
    }
    thick = {"kind": "potential", "slices": 2, "thickness_angstrom": 6.0}
    job = make_job(values | {"specimen": thick, "step": [coarse, fine]})
    alone = start(
        make_job(values | {"specimen": thick, "step": [coarse]}), tmp_path / "coarse"
    ).model
    start(job, tmp_path / "run", Interrupting(after=6))  # in the second step
    model = resume(tmp_path / "run").model
    mask = support_mask(np.asarray(alone.specimen.potential, float), (3.0, 0.3, 0.3), 0.6, 0.6, 0.0)
    assert 0.02 < mask.mean() < 0.9
    np.testing.assert_array_equal(np.asarray(model.specimen.potential)[mask == 0], 0)
    assert np.asarray(model.specimen.potential)[mask > 0].all()
    with pytest.raises(ValueError, match="a support of an empty specimen"):
        start(make_job(values | {"specimen": thick, "step": [fine]}), tmp_path / "empty")


@pytest.fixture
def kept(values, tmp_path, monkeypatch):
    """The run of the reference from patterns kept on the devices, interrupted after an epoch."""
    tables = []
    monkeypatch.setattr(resident, "fits", lambda data: tables.append(data) or True)
    outcome = start(make_job(values), tmp_path / "run", Interrupting(after=1))
    assert len(outcome.history) == 1  # a whole epoch was one call
    resumed = resume(tmp_path / "run").model
    assert len(tables) == 2
    table = resident.pattern_table(tables[0], mesh(2))
    assert (table.dtype, table.shape) == (np.uint16, (64, 32, 32))
    np.testing.assert_array_equal(table, tables[0].patterns(0, np.arange(64)))
    return resumed


def test_patterns_kept_on_the_devices_give_the_same_model(kept, reference):
    """To rounding, as the compiler of the fast tests orders sums in each program as it likes.

    In the norm: where a gradient is nearly zero, Adam divides it by its own size, and single pixels
    differ by as much as the machine makes of that.
    """
    for one, other in zip(*map(jax.tree.leaves, (kept, reference.model)), strict=True):
        assert np.linalg.norm(one - other) <= 1e-9 * np.linalg.norm(other)


@pytest.mark.slow
def test_patterns_kept_on_the_devices_give_the_same_bits(kept, reference):
    """With the compiler that users have."""
    assert same(kept, reference.model)


def test_a_signal_is_heard_while_the_data_are_read(values, tmp_path, monkeypatch):
    def read(*given, read=runner.read_data):
        os.kill(os.getpid(), signal.SIGTERM)
        return read(*given)

    monkeypatch.setattr(runner, "read_data", read)
    outcome = start(make_job(values | {"figures": {"every": 0}}), tmp_path / "run")
    assert (outcome.why, outcome.history) == ("SIGTERM", [])


def test_the_wall_time_ends_a_run_cleanly(values, tmp_path):
    job = make_job(values | {"run": values["run"] | {"wall_time_minutes": 1e-5}})
    outcome = start(job, tmp_path / "run")
    assert outcome.why == "the wall-time limit"
    assert not outcome.history
    assert np.isfinite(load(tmp_path / "run" / "result.h5").probe.waves).all()


def test_the_wall_time_is_a_checkpoint_beside_those_of_the_interval(
    reference, values, tmp_path, monkeypatch
):
    """Stopped within the third of five epochs, where every second one is kept; gone on with to the same bits."""
    minutes = [0.0]
    monkeypatch.setattr(
        "jaxptycho.runs.progress.time", SimpleNamespace(monotonic=lambda: 60 * minutes[0])
    )

    class Waiting(ProgressListener):
        calls = 0

        def batch(self, patterns):
            self.calls += 1
            minutes[0] = 61.0 if self.calls == 5 else 0.0

    job = make_job(values | {"run": values["run"] | {"wall_time_minutes": 60}})
    first = start(job, tmp_path / "run", Waiting())
    assert (first.why, len(first.history)) == ("the wall-time limit", 2)
    assert sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        8,
        10,
    ]
    assert same(resume(tmp_path / "run").model, reference.model)


def test_a_divergence_keeps_the_last_good_model_and_names_part_and_step(values, tmp_path):
    wild = {
        "kind": "refine",
        "name": "wild",
        "epochs": 2,
        "batch": 15,
        "optimiser": "sgd",
        "rates": {"specimen": 1e200},
    }
    calm = {
        "kind": "refine",
        "epochs": 1,
        "batch": 15,
        "rates": {"specimen": 5e-2, "probe": 5e-3, "scan": 1e-2},
    }
    job = make_job(values | {"step": [calm, wild]})
    with pytest.raises(
        Diverged, match=r"NaN or infinite in step 'wild', epoch 2: .*specimen\.transmission"
    ):
        start(job, tmp_path / "run")
    model = load(tmp_path / "run" / "result.h5")
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    )
    assert len(load_history(tmp_path / "run" / "result.h5")["loss"]) == 1


def test_a_full_disk_loses_nothing(reference, values, tmp_path, monkeypatch):
    from jaxptycho.io import atomic_write as drafts

    def full(*args):
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    start(make_job(values), folder, Interrupting(after=2))
    before = (folder / "result.h5").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(drafts.os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            resume(folder)
    assert (folder / "result.h5").read_bytes() == before
    assert not list(folder.rglob(".*"))  # no drafts are left behind
    assert same(resume(folder).model, reference.model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the map of the scan")  # so few patterns leave it doubtful
def test_an_affine_scan_is_mapped_before_the_first_epoch(values, tmp_path):
    step = {"kind": "refine", "epochs": 1, "batch": 15, "rates": {"specimen": 5e-3, "probe": 5e-3}}
    start(make_job(values | {"scan": {"kind": "affine"}, "step": [step]}), tmp_path / "run")
    found = np.loadtxt(tmp_path / "run" / "scan_map.txt")
    assert np.any(found != np.eye(2))
    np.testing.assert_allclose(load(tmp_path / "run" / "result.h5").scan.matrix, found, rtol=1e-6)


def test_positions_are_searched_for_once_before_the_first_epoch(values, tmp_path, monkeypatch):
    """Held-out shots, too, are at the places found, whatever their neighbours' displacements."""
    asked = []
    by = np.random.default_rng(0).uniform(-1, 1, (64, 2))

    def found(data, first, error, say, measured):
        asked.append((error, first(data).specimen.phase.shape))
        return data.positions[0] + by[: data.n_shots[0]]

    monkeypatch.setattr(build, "find_positions", found)
    step = {"kind": "refine", "epochs": 1, "batch": 15, "rates": {"specimen": 5e-3}}
    more = {"scan": {"error_angstrom": 0.8}, "step": [step]}
    more["data"] = values["data"] | {"hold_out": 0.2}
    job = make_job(values | more)
    folder = tmp_path / "run"
    start(job, folder, Interrupting(after=1))
    model = resume(folder).model
    assert [error for error, _ in asked] == [0.8]
    recorded = read_data(job).positions[0]
    places = probe_positions(model)
    np.testing.assert_allclose(places, recorded + by[: len(recorded)], rtol=1e-5, atol=1e-5)


def test_a_scan_too_small_for_a_search_is_refused_before_a_folder_is_made(values, tmp_path):
    more = {"scan": {"error_angstrom": 0.8}, "data": values["data"] | {"fraction": 0.25}}
    with pytest.raises(ValueError, match=r"16 shots; .* leave scan\.error_angstrom out"):
        start(make_job(values | more), tmp_path / "run")
    assert not (tmp_path / "run").exists()
