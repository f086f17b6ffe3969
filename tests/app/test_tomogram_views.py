"""The views of a tilt series' job: which of their shots are learnt from, and which views are left out."""

import equinox as eqx
import numpy as np
import pytest
from tilts import SIMULATION, job_of

from jaxptycho import read
from jaxptycho.app.build import read_data
from jaxptycho.app.loop import Progress
from jaxptycho.app.run import loop_of
from jaxptycho.app.tomogram import alone, dropped, empty, first_volume, series_of, write_alignment
from jaxptycho.tomography.alignment import Aligned
from jaxptycho.tomography.poses import posed
from jaxptycho.tomography.projections import Geometry


def test_every_view_keeps_other_positions_of_the_same_scan(series):
    data = read_data(job_of(series).data.model_copy(update={"fraction": 0.3}))
    assert data.n_shots == [5, 5, 5]
    assert len({tuple(map(tuple, places)) for places in data.positions}) > 1


@pytest.mark.parametrize("order", ["random", "compact", "sparse"])
def test_a_view_that_is_left_out_is_in_no_batch(series, order):
    stage = {"epochs": 1, "batch": 6, "order": order}
    loop = loop_of(job_of(series, stage=[stage]))
    loop.leave_out({1})
    drawn = list(loop.batches_left(Progress(loop.first_model())))
    assert {int(batch.view) for batch in drawn} == {0, 2}
    assert len(drawn) == loop.steps(0) == 6
    assert [len(own) for own in loop.held] == [2, 0, 2]


def test_views_that_do_not_fit_are_dropped_from_all_that_follows(series, tmp_path):
    geometry = Geometry(np.deg2rad(SIMULATION["tilt_series"]["tilts_deg"]))
    found = Aligned(geometry, None, np.ones(3), [1], np.zeros(1))
    assert found.words()["views that do not fit"] == "1"
    write_alignment(tmp_path / "alignment.csv", found)
    job = job_of(series, alignment={"drop": True})
    assert dropped(job, tmp_path) == {1}
    assert dropped(job_of(series), tmp_path) == set()
    data = read(series)
    models = [alone(job, data.view(view)) for view in range(3)]
    spoilt = eqx.tree_at(lambda m: m.specimen.phase, models[1], models[1].specimen.phase + 1.0)
    spoilt = eqx.tree_at(lambda m: m.specimen.phase, spoilt, spoilt.specimen.phase.at[:, 20:24, 20:24].add(1.0))
    volumes = [
        first_volume(job, [models[0], spoilt, models[2]], data, geometry, empty(job, data), without)
        for without in ((), {1})
    ]
    assert float(volumes[0].max()) > 0
    assert float(volumes[1].max()) == 0
    _, *rest = posed_in_turn(series_of(job, data), data, [range(4), [], range(4)])
    assert [bool(np.any(moved)) for moved in rest] == [True, False, True]


def posed_in_turn(model, data, shots):
    """The model after a pose step, and how far the shift of every view went."""
    new = posed(model, data, "shifts", shots=[np.array(own, int) for own in shots])
    return new, *(np.asarray(new.specimen.shift.values) - np.asarray(model.specimen.shift.values))
