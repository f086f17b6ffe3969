"""The views of a tilt series' job: which of their shots are learnt from, and which views are left out."""

import csv
import shutil
import warnings
from dataclasses import replace

import equinox as eqx
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from stepping import aligned, context_of, loop_of, views_of
from tilts import ALIGN, LINEAR, SERIES, SIMULATION, VIEWS, job_of

from jaxptycho import Dataset, load, predict, read
from jaxptycho.io.native import write_native
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.series import series_model, view_model
from jaxptycho.jobs.steps.align import ALIGNMENT
from jaxptycho.jobs.steps.views import depth_of_middle, probes_of, sliced_view
from jaxptycho.runs.state import State
from jaxptycho.tomography.alignment import Aligned
from jaxptycho.tomography.poses import refine_poses
from jaxptycho.tomography.projections import Geometry
from jaxptycho.tomography.views import projected_views

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_every_view_keeps_other_positions_of_the_same_scan(series):
    job = job_of(series)
    part = job.data.model_copy(update={"fraction": 0.3})
    data = read_data(job.model_copy(update={"data": part}))
    assert data.n_shots == [5, 5, 5]
    assert len({tuple(map(tuple, places)) for places in data.positions}) > 1


@pytest.mark.parametrize("order", ["random", "compact", "sparse"])
def test_a_view_that_is_left_out_is_in_no_batch(series, order):
    step = SERIES | {"epochs": 1, "batch": 6, "order": order}
    loop, model = loop_of(job_of(series, step=[step]), without={1})
    drawn = list(loop.source.epoch(loop.source.home(model), 6, order, 0))
    assert {int(batch.view) for batch in drawn} == {0, 2}
    assert len(drawn) == loop.steps == 6
    assert [len(own) for own in loop.source.held] == [2, 0, 2]


def test_views_that_do_not_fit_are_dropped_from_all_that_follows(series, tmp_path, monkeypatch):
    geometry = Geometry(np.deg2rad(SIMULATION["tilt_series"]["tilts_deg"]))
    found = Aligned(geometry, np.zeros((16, 16, 16)), np.ones(3), [1], np.zeros(1))
    assert found.summary()["views that do not fit"] == "1"
    monkeypatch.setattr("jaxptycho.jobs.steps.align.align", lambda *series, **options: found)
    data = read(series)
    left_out = {}
    for drop in (True, False):
        job = job_of(series, step=[VIEWS, ALIGN | {"drop": drop}, LINEAR])
        models = {view: view_model(job, data.view(view)) for view in range(3)}
        left_out[drop] = aligned(job, models, tmp_path).left_out
    assert left_out == {True: (1,), False: ()}
    with (tmp_path / "steps" / "01-align" / ALIGNMENT).open() as table:
        assert [row["fits"] for row in csv.DictReader(table)] == ["True", "False", "True"]
    spoilt = eqx.tree_at(lambda m: m.specimen.phase, models[1], models[1].specimen.phase + 1.0)
    spoilt = eqx.tree_at(
        lambda m: m.specimen.phase, spoilt, spoilt.specimen.phase.at[:, 20:24, 20:24].add(1.0)
    )
    context, first = context_of(job, tmp_path, 2), series_model(job, data)
    volumes = []
    for without in ((), (1,)):
        state = State(first, models | {1: spoilt}, without)
        volumes.append(job.step[2].run(state, context).model.specimen.potential)
    assert float(volumes[0].max()) > 0
    assert float(volumes[1].max()) == 0
    _, *rest = posed_in_turn(first, data, [range(4), [], range(4)])
    assert [bool(np.any(moved)) for moved in rest] == [True, False, True]


@pytest.mark.parametrize("left_out", [(), (1,)])
def test_the_probe_of_the_view_refined_last_is_handed_on(series, left_out):
    """The most tilted one that fits, in whatever order the files of views were read."""
    job, data = job_of(series), read(series)  # -30, 0 and 40 degrees
    models = {view: view_model(job, data.view(view)) for view in (2, 0, 1)}
    models = {
        n: replace(m, probe=replace(m.probe, waves=m.probe.waves * (n + 1)))
        for n, m in models.items()
    }
    for views in (models, dict(sorted(models.items()))):
        (probe,) = probes_of(job, data, views, left_out)
        np.testing.assert_allclose(probe.waves, models[2].probe.waves)
        (probe,) = probes_of(job, data, views, (2,))
        np.testing.assert_allclose(probe.waves, models[0].probe.waves)


def test_the_slices_of_a_view_lie_about_the_tilt_axis(series):
    """Whose height is that of the defocus, and of the probe that is handed on."""
    job, data = job_of(series, probe={"kind": "aberrated"}), read(series).view(0)
    thin, thick = view_model(job, data), sliced_view(job, 4, 60.0, data)
    np.testing.assert_allclose(thick.specimen.thickness, 15.0)
    assert thick.specimen.phase.shape == (4, *thin.specimen.phase.shape[1:])
    assert depth_of_middle(thick) == 22.5
    np.testing.assert_allclose(
        thick.probe.aberrations["C10"] + 22.5, thin.probe.aberrations["C10"], rtol=1e-5
    )


@pytest.mark.slow
def test_slices_show_the_projection_of_a_thick_specimen(series, tmp_path):
    """Two layers 60 Å apart, counts of the same model: a thin phase in the middle is blurred."""
    data, (y, x) = read(series), np.meshgrid(*2 * [0.5 * (np.arange(10) - 5)], indexing="ij")
    layers = [[(-1.0, -1.0), (1.2, 0.5)], [(1.0, -1.2), (-0.6, 1.4)]]

    def phase(layer, y, x):
        return sum(0.6 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 0.72) for a, b in layer)

    def shown(view):
        model = sliced_view(job_of(series), 2, 120.0, data.view(view))
        places = [
            at + 0.5 * np.arange(n)
            for at, n in zip(model.specimen.origin, model.specimen.phase.shape[1:], strict=True)
        ]
        both = jnp.asarray(
            [phase(layer, places[0][:, None], places[1]) for layer in layers], jnp.float32
        )
        known = eqx.tree_at(lambda m: m.specimen.phase, model, both)
        return np.fft.fftshift(predict(known, np.arange(16)), axes=(1, 2))

    counts = np.stack([shown(view) for view in range(3)])
    thick = Dataset(counts, np.stack(data.positions), data.grid, tilts=data.tilts, about=data.about)
    write_native(tmp_path / "thick.h5", thick)
    true, likeness = sum(phase(layer, y, x) for layer in layers), {}
    for slices in (1, 2):
        step = VIEWS | {"epochs": 30, "slices": slices, "thickness_angstrom": 120.0}
        data = {"file": str(tmp_path / "thick.h5"), "hold_out": 0.0}
        model = views_of(job_of(series, data=data, step=[step]), tmp_path / f"{slices}")[1]
        found = projected_views([model], true.shape).projections[0]
        likeness[slices] = np.corrcoef(found.ravel(), true.ravel())[0, 1]
    assert likeness[2] > 0.97
    assert likeness[1] < likeness[2] - 0.02, likeness


@pytest.mark.parametrize(
    ("isolated", "key", "extended"),
    [(False, None, True), (True, None, False), (False, False, False), (True, True, True)],
)
def test_films_are_aligned_by_their_common_field(
    series, tmp_path, monkeypatch, isolated, key, extended
):
    """Unless the job says otherwise."""

    def asked(*series, **options):
        raise StopIteration(options["extended"])

    monkeypatch.setattr("jaxptycho.jobs.steps.align.align", asked)
    align = ALIGN if key is None else ALIGN | {"common_field": key}
    job = job_of(series, specimen={"kind": "volume", "isolated": isolated}, step=[VIEWS, align])
    data = read(series)
    models = {view: view_model(job, data.view(view)) for view in range(3)}
    with pytest.raises(StopIteration, match=str(extended)):
        aligned(job, models, tmp_path)


def posed_in_turn(model, data, shots):
    """The model after a pose step, and how far the shift of every view went."""
    new = refine_poses(model, data, "shifts", shots=[np.array(own, int) for own in shots])
    return new, *(np.asarray(new.specimen.shift.values) - np.asarray(model.specimen.shift.values))


def not_finite(counts):
    counts[:, 3, 4] = np.nan


def mostly_not_finite(counts):
    counts[::2] = np.inf


def empty(counts):
    counts[:] = 0


USELESS = {"not finite": not_finite, "half not finite": mostly_not_finite, "empty": empty}


def spoilt(series, folder, change):
    """Paths of the series with its second view changed, and without this view."""
    data = read(series)
    counts = [np.asarray(view[:], np.float32).copy() for view in data.counts]
    change(counts[1])
    paths = folder / "spoilt.h5", folder / "without.h5"
    for path, views in zip(paths, ([0, 1, 2], [0, 2]), strict=True):
        shutil.copy(series, path)
        with h5py.File(path, "r+") as file:
            for name in ("counts", "positions", "tilt_deg"):
                of_all = counts if name == "counts" else file[name][:]
                del file[name]
                file[name] = np.stack([of_all[view] for view in views])
    return paths


@pytest.mark.parametrize("name", USELESS)
def test_a_view_without_usable_counts_is_left_out(name, series, tmp_path):
    with_it, without = spoilt(series, tmp_path, USELESS[name])
    with pytest.warns(UserWarning, match=r"left out 1 of 3 views, .*: 1 \(tilt 0°\)"):
        data = read_data(job_of(with_it))
    rest = read_data(job_of(without))
    np.testing.assert_array_equal(data.tilts, rest.tilts)
    np.testing.assert_array_equal(data.mean_pattern(), rest.mean_pattern())
    for view in (0, 1):
        np.testing.assert_array_equal(data.positions[view], rest.positions[view])
        np.testing.assert_array_equal(
            data.patterns(view, np.arange(16)), rest.patterns(view, np.arange(16))
        )


@pytest.mark.slow
def test_the_rest_of_a_series_is_as_without_a_useless_view(series, tmp_path):
    volumes = []
    for path in spoilt(series, tmp_path, not_finite):
        job = job_of(path, step=[SERIES | {"epochs": 2, "rates": {"specimen": 1e-2}}])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "left out 1 of 3 views")
            start(job, tmp_path / path.stem)
        volumes.append(np.asarray(load(tmp_path / path.stem / "result.h5").specimen.potential))
    np.testing.assert_array_equal(*volumes)
