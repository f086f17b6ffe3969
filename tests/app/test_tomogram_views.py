"""The views of a tilt series' job: which of their shots are learnt from, and which views are left out."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from tilts import SIMULATION, job_of

from jaxptycho import Dataset, predict, read
from jaxptycho.jobs.build import read_data
from jaxptycho.jobs.runner import loop_of
from jaxptycho.jobs.tomogram import (
    aligned_geometry,
    alone,
    cut,
    dropped,
    empty,
    first_volume,
    middle_of,
    series_of,
    views_of,
    write_alignment,
)
from jaxptycho.runs.loop import Progress
from jaxptycho.tomography.alignment import Aligned
from jaxptycho.tomography.poses import posed
from jaxptycho.tomography.projections import Geometry
from jaxptycho.tomography.views import projected_views


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
    assert dropped(job_of(series, alignment={"drop": False}), tmp_path) == set()
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


def test_the_slices_of_a_view_lie_about_the_tilt_axis(series):
    """Whose height is that of the defocus, and of the probe that is handed on."""
    job, data = job_of(series, probe={"kind": "aberrated"}, views={"slices": 4}), read(series).view(0)
    thin, thick = alone(job, data), cut(job, 60.0, data)
    np.testing.assert_allclose(thick.specimen.thickness, 15.0)
    assert thick.specimen.phase.shape == (4, *thin.specimen.phase.shape[1:])
    assert middle_of(thick) == 22.5
    np.testing.assert_allclose(thick.probe.aberrations["C10"] + 22.5, thin.probe.aberrations["C10"], rtol=1e-5)


@pytest.mark.slow
def test_slices_show_the_projection_of_a_thick_specimen(series, tmp_path):
    """Two layers 60 Å apart, counts of the same model: a thin phase in the middle is blurred."""
    data, (y, x) = read(series), np.meshgrid(*2 * [0.5 * (np.arange(10) - 5)], indexing="ij")
    layers = [[(-1.0, -1.0), (1.2, 0.5)], [(1.0, -1.2), (-0.6, 1.4)]]

    def job(slices):
        views = {"slices": slices, "thickness_angstrom": 120.0, "batch": 8}
        return job_of(series, views=views)

    def phase(layer, y, x):
        return sum(0.6 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.72) for a, b in layer)

    def shown(view):
        model = cut(job(2), 120.0, data.view(view))
        places = [
            at + 0.5 * np.arange(n) for at, n in zip(model.specimen.origin, model.specimen.phase.shape[1:], strict=True)
        ]
        both = jnp.asarray([phase(layer, places[0][:, None], places[1]) for layer in layers], jnp.float32)
        known = eqx.tree_at(lambda m: m.specimen.phase, model, both)
        return np.fft.fftshift(predict(known, np.arange(16)), axes=(1, 2))

    counts = np.stack([shown(view) for view in range(3)])
    thick = Dataset(counts, np.stack(data.positions), data.grid, tilts=data.tilts, about=data.about)
    true, likeness = sum(phase(layer, y, x) for layer in layers), {}
    for slices in (1, 2):
        (tmp_path / f"{slices}").mkdir()
        _, model = next(views_of(job(slices), thick, tmp_path / f"{slices}"))
        found = projected_views([model], true.shape).projections[0]
        likeness[slices] = np.corrcoef(found.ravel(), true.ravel())[0, 1]
    assert likeness[2] > 0.97
    assert likeness[1] < likeness[2] - 0.02, likeness


@pytest.mark.parametrize(
    ("isolated", "key", "extended"),
    [(False, None, True), (True, None, False), (False, False, False), (True, True, True)],
)
def test_films_are_aligned_by_their_common_field(series, tmp_path, monkeypatch, isolated, key, extended):
    """Unless the job says otherwise."""

    def asked(*series, **options):
        raise StopIteration(options["extended"])

    monkeypatch.setattr("jaxptycho.jobs.tomogram.align", asked)
    alignment = {} if key is None else {"common_field": key}
    job = job_of(series, volume={"isolated": isolated}, alignment=alignment)
    data = read(series)
    models = [alone(job, data.view(view)) for view in range(3)]
    with pytest.raises(StopIteration, match=str(extended)):
        aligned_geometry(job, models, data, tmp_path, print)


def posed_in_turn(model, data, shots):
    """The model after a pose step, and how far the shift of every view went."""
    new = posed(model, data, "shifts", shots=[np.array(own, int) for own in shots])
    return new, *(np.asarray(new.specimen.shift.values) - np.asarray(model.specimen.shift.values))
