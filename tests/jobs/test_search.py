"""Positions that are searched for although nobody says that they are wrong."""

import numpy as np
import pytest

from jaxptycho.analysis.evidence import Evidence
from jaxptycho.io.results import load_history
from jaxptycho.jobs import context
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import resume, start
from jaxptycho.jobs.steps import refine
from jaxptycho.model import probe_positions

pytestmark = pytest.mark.usefixtures("undrawn", "quick_to_compile")
EPOCHS = 1


@pytest.fixture
def searched(values, monkeypatch):
    """A job with automatic rates, what it explains, the positions found and how often."""
    job = make_job(
        {"data": values["data"], "step": [{"kind": "refine", "epochs": EPOCHS, "batch": 15}]}
    )
    monkeypatch.setattr(refine, "LONG", EPOCHS)
    recorded = read_data(job).positions[0]
    found = recorded + np.random.default_rng(0).uniform(-2, 2, recorded.shape)
    asked = []

    def find(job, data, say):
        asked.append(data.positions[0])
        return found

    monkeypatch.setattr(context, "found_positions", find)
    return job, found, asked


def explaining(monkeypatch, share):
    """Every model explains this share of what varies."""
    monkeypatch.setattr(Evidence, "varies", property(lambda self: True))
    monkeypatch.setattr(Evidence, "share_at_most", property(lambda self: share))


def test_a_step_that_explains_little_begins_again_at_the_positions_found(
    searched, tmp_path, monkeypatch
):
    job, found, asked = searched
    explaining(monkeypatch, 0.3)
    outcome = start(job, tmp_path / "run")
    np.testing.assert_allclose(probe_positions(outcome.model), found, atol=0.2)
    assert len(load_history(tmp_path / "run" / "result.h5")["loss"]) == 2 * EPOCHS
    assert len(asked) == 1
    again = resume(tmp_path / "run").model
    np.testing.assert_array_equal(probe_positions(again), probe_positions(outcome.model))
    assert len(asked) == 1


def test_recorded_positions_are_kept_where_no_others_fit_better(searched, tmp_path, monkeypatch):
    job, _, asked = searched
    explaining(monkeypatch, 0.3)
    monkeypatch.setattr(context, "found_positions", lambda job, data, say: asked.append(1))
    outcome = start(job, tmp_path / "run")
    assert len(outcome.history) == EPOCHS
    resume(tmp_path / "run")
    assert asked == [1]


@pytest.mark.parametrize(("share", "search"), [(0.95, "auto"), (0.3, "off")])
def test_no_search_where_much_is_explained_or_it_is_off(
    searched, tmp_path, monkeypatch, share, search
):
    job, _, asked = searched
    explaining(monkeypatch, share)
    scan = job.scan.model_copy(update={"search": search})
    outcome = start(job.model_copy(update={"scan": scan}), tmp_path / "run")
    assert len(outcome.history) == EPOCHS
    assert not asked
