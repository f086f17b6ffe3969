"""`jaxptycho tomogram`: a small tilt series from its file to a volume, interrupted and gone on with."""

import csv
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from killed import gone_on, killed
from typer.testing import CliRunner

from jaxptycho import FreeScan, Grid, Model, PerShot, PerView, PixelProbe, Volume, load, make_batch, per_part, read
from jaxptycho.analysis.errors import probe_fidelity
from jaxptycho.analysis.resolution import fourier_correlation
from jaxptycho.analysis.shells import taper
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.app.build import build_optimiser, read_data
from jaxptycho.app.cli import app
from jaxptycho.app.comparison import report
from jaxptycho.app.errors import Diverged
from jaxptycho.app.jobs import kind_of, make_job, read_job, write_job
from jaxptycho.app.loop import Progress
from jaxptycho.app.run import loop_of, resume, start
from jaxptycho.app.simulation import run_simulation
from jaxptycho.app.simulation_schema import SimulationJob
from jaxptycho.app.tomogram import alone, dropped, empty, first_volume, series_of, write_alignment
from jaxptycho.app.tomogram_schema import TomogramJob
from jaxptycho.app.watch import Watch
from jaxptycho.inverse.preconditioning import measured, shell_growth
from jaxptycho.inverse.solve import trainable
from jaxptycho.io.native import read_truth
from jaxptycho.start.probes import moved_along
from jaxptycho.tomography import poses
from jaxptycho.tomography.alignment import Aligned
from jaxptycho.tomography.poses import posed
from jaxptycho.tomography.projections import Geometry

SIMULATION = {
    "specimen": {"phantom": "platinum_in_alumina", "options": {"edge": 6.0, "core": 3.0}},
    "microscope": {"voltage_kv": 200.0, "semiangle_mrad": 25.0, "defocus_angstrom": 30.0},
    "scan": {"shape": [4, 4], "step_angstrom": 1.5, "dose_per_square_angstrom": 1e5},
    "detector": {"pixels": 24, "pixel_angstrom": 0.5},
    "tilt_series": {"tilts_deg": [-30.0, 0.0, 40.0], "shift_angstrom": 0.3},
    "sampling": {"slice_angstrom": 3.0, "pixel_angstrom": 0.25},
}
JOB = {
    "volume": {"size_angstrom": [8.0, 8.0, 8.0], "slices": 2, "kernel": "linear", "isolated": True},
    "views": {"epochs": 2, "batch": 8},
    "alignment": {"turns": 1, "iterations": 2, "bins": [2]},
    "linear": {"iterations": 2},
    "stage": [
        {"name": "coarse", "epochs": 1, "batch": 16, "poses": "shifts", "anew": True},
        {"name": "fine", "epochs": 2, "batch": 16, "rates": {"specimen": 1e-2}},
    ],
    "run": {"devices": 1},
}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("series") / "tilts.h5"
    run_simulation(make_job(SIMULATION, kind=SimulationJob), file)
    return file


def job_of(series: Path, **changes) -> TomogramJob:
    return make_job(JOB | {"data": {"file": str(series), "hold_out": 0.1}} | changes, kind=TomogramJob)


class AfterViews(Watch):
    """Asks to stop once so many views are done."""

    def __init__(self, views):
        self.left = views

    def say(self, text):
        self.left -= text.startswith("view ")

    def stop(self):
        return "enough" if self.left <= 0 else None


@pytest.mark.slow
def test_a_series_becomes_a_volume_however_often_it_is_interrupted(series, tmp_path):
    folder, watch = tmp_path / "run", AfterViews(2)
    first = start(job_of(series), folder, watch, watch.stop)
    assert (first.why, len(list((folder / "views").iterdir()))) == ("enough", 2)
    made = {path: path.stat().st_mtime_ns for path in (folder / "views").iterdir()}
    outcome = resume(folder)
    assert outcome.finished
    assert [row.stage for row in outcome.history] == ["coarse", "fine", "fine"]
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())  # none is made again
    assert {"start.h5", "alignment.csv", "result.h5", "run.toml"} <= {path.name for path in folder.iterdir()}
    assert (folder / "figures" / "sections.png").stat().st_size > 5000
    with (folder / "alignment.csv").open() as file:
        tilts = [float(row["tilt_deg"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(tilts, SIMULATION["tilt_series"]["tilts_deg"], atol=1e-3)
    begun, ended = (load(folder / name).specimen for name in ("start.h5", "result.h5"))
    assert isinstance(ended, Volume)
    assert ended.potential.shape == (16, 16, 16)
    assert not np.array_equal(begun.shift.values, ended.shift.values)  # views have moved
    assert float(begun.potential.max()) > 0  # from the projections
    places = load(folder / "result.h5").scan.positions.values.values
    with h5py.File(series) as file:
        np.testing.assert_allclose(places, file["positions"][()], atol=1e-4)  # the held-out shots are still counted


def test_the_job_of_a_series_is_written_checked_and_inspected(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    written = run(app, ["new", str(series), "--out", "job.toml"])
    assert "jaxptycho tomogram job.toml" in written.output
    assert kind_of(Path("job.toml")) is TomogramJob
    assert read_job(Path("job.toml"), kind=TomogramJob).probe.semiangle_mrad == 25.0
    checked = run(app, ["validate", "job.toml"])
    assert checked.exit_code == 0, checked.output
    assert "voxels" in checked.output
    assert "+40" in run(app, ["inspect", str(series)]).output


def test_a_volume_within_the_scan_is_refused_unless_it_is_isolated(series):
    small = JOB["volume"] | {"size_angstrom": [3.0, 4.0, 4.0], "isolated": False}
    with pytest.raises(ValueError, match=r"view 0, at -30°, is scanned to .* where the volume ends at .* isolated"):
        loop_of(job_of(series, volume=small)).check()


def test_what_a_series_cannot_do_is_no_key_of_its_job(series):
    for section, name in (
        ("probe", "basis"),
        ("detector", "effective_distance_angstrom"),
        ("figures", "band_pass_angstrom"),
    ):
        with pytest.raises(ValueError, match=f"there is no key {section}.{name}"):
            job_of(series, **{section: {name: 1.0}})
    with pytest.raises(ValueError, match=r"probe.kind = 'relaxed': wanted 'pixel' or 'aberrated'"):
        job_of(series, probe={"kind": "relaxed"})


def test_probe_and_camera_of_the_job_are_those_of_views_and_series(series):
    """The views' own models are as fine as that of all views, and count with the same camera."""
    camera = {"supersample": 2, "extend": 2, "background": 0.25, "per_shot_intensity": True}
    job = job_of(series, probe={"kind": "aberrated", "per_view": True, "modes": 1}, detector=camera)
    data = read(series)
    thin, whole = alone(job, data.view(1)), series_of(job, data)
    for model in (thin, whole):
        assert model.grid.shape == (96, 96)
        np.testing.assert_allclose(model.grid.pixel, 0.25)
        np.testing.assert_allclose(model.detector.counts, 0.25)
    assert whole.specimen.voxel == (0.25, 0.25, 0.25)
    assert [thin.detector.detector.factor.values.shape, whole.detector.detector.factor.values.values.shape] == [
        (16,),
        (3, 16),
    ]
    frame = whole.specimen.frame
    above = frame.depth.middle * frame.depth.step
    np.testing.assert_allclose(thin.probe.aberrations["C10"] - above, whole.probe.aberrations["C10"].values, atol=1e-4)
    np.testing.assert_allclose(whole.probe.dose.values, [data.dose(view).mean() for view in range(3)], rtol=1e-5)


def test_the_defocus_of_the_file_is_that_of_the_simulation(series):
    """Both probes, brought to one height: what was simulated at the entrance, and what the job starts from."""
    data, truth = read(series), read_truth(series)
    model = series_of(job_of(series), data)
    frame = model.specimen.frame
    first = -frame.depth.middle * frame.depth.step  # height of the first slice
    true = moved_along(PixelProbe(jnp.asarray(truth["probe"][0])), data.grid, first - truth["origin_angstrom"][0])
    fidelity = probe_fidelity(np.asarray(model.probe.waves), np.asarray(true.waves), np.array(data.grid.pixel)).fidelity
    assert fidelity > 0.999


def test_gradients_are_preconditioned_as_the_job_says(series, quick_to_compile):
    """W(k) in the beam's frame of the batch's view, and shells that grow: as by hand."""
    growing = {"kind": "shell_growth", "first_inverse_angstrom": 0.3, "last_inverse_angstrom": 0.9, "steps": 2}
    terms = [{"kind": "measured", "semiangle_mrad": 25.0, "thickness_angstrom": 8.0}, growing]
    stage = {"epochs": 1, "batch": 16, "optimiser": "sgd", "rates": {"specimen": 1.0}, "precondition": terms}
    loop = loop_of(job_of(series, stage=[stage]))
    model = loop.first_model()
    by_job = build_optimiser(loop.job.stage[0], 3)
    by_hand = per_part(specimen=optax.chain(measured(25.0, 8.0), shell_growth(0.3, 0.9, 2), optax.sgd(1.0)))
    params = trainable(model)
    noise = jnp.asarray(
        np.random.default_rng(0).normal(size=model.specimen.potential.shape), params.specimen.potential.dtype
    )
    grads = eqx.tree_at(lambda m: m.specimen.potential, params, noise)
    batch = make_batch(loop.data, 2, range(4))
    found = []
    for optimiser in (by_job, by_hand):
        updates, _ = optimiser.update(grads, optimiser.init(params), params, model=model, batch=batch)
        found.append(np.asarray(updates.specimen.potential))
    np.testing.assert_array_equal(*found)
    plain = per_part(specimen=optax.sgd(1.0))
    whole = plain.update(grads, plain.init(params), params, model=model, batch=batch)[0].specimen.potential
    assert 0 < np.linalg.norm(found[0]) < 0.4 * np.linalg.norm(whole)
    for wrong in ({"rates": {"probe": 1e-3}}, {"optimiser": "lbfgs"}):
        with pytest.raises(ValueError, match="they filter the gradient of the specimen"):
            loop_of(job_of(series, stage=[stage | wrong])).check()


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
    write_alignment(tmp_path / "alignment.csv", Aligned(geometry, None, np.ones(3), [1], np.zeros(1)))
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


def test_a_support_waits_for_the_volume_of_its_stage(series):
    """There is one after the first step, none where a stage or the one before it begins anew."""
    support = {"kind": "support", "blur_angstrom": 1.0}
    coarse, fine = JOB["stage"]
    loop_of(job_of(series, stage=[fine | {"constraint": [support]}])).check()
    for without in (
        job_of(series, stage=[fine | {"constraint": [support]}], linear={"iterations": 0}),
        job_of(series, stage=[coarse, fine | {"constraint": [support]}]),
    ):
        with pytest.raises(ValueError, match="a support of an empty specimen"):
            loop_of(without).check()


@pytest.mark.parametrize(
    ("views", "tilts", "sentence"),
    [(3, [10.0, 10.0, 10.0], "all tilts"), (3, None, "tilt_deg"), (3, [0.0, 10.0], "tilts")],
)
def test_a_series_without_depth_is_refused(series, tmp_path, views, tilts, sentence):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(series.read_bytes())
    with h5py.File(bad, "a") as file:
        del file["tilt_deg"]
        if tilts is not None:
            file["tilt_deg"] = tilts
    with pytest.raises(ValueError, match=sentence):
        loop_of(job_of(bad)).check()


def gaussians(places, n=32, voxel=0.5, width=0.6):
    axis = (np.arange(n) - n // 2) * voxel
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / (2 * width**2)) for a, b, c in places)


def test_volumes_are_compared_on_top_of_one_another(tmp_path):
    """The same Gaussians in another pose and a smaller box, each with noise of its own: FSC = S/(S + N) by shells."""
    rng = np.random.default_rng(0)
    places = rng.uniform(-4, 4, (25, 3))
    turned = places @ rotation_matrices(np.deg2rad([2.0, -1.0, 1.5])).T + [0.6, -0.4, 0.5]
    noise = [0.02 * rng.normal(size=(32,) * 3) for _ in range(2)]
    tilts = PerView(jnp.array([-0.3, 0.3]))
    volumes = [gaussians(p) + n for p, n in zip((places, turned), noise, strict=True)]
    cut = volumes[0], volumes[1][1:, :-1, 1:-1]
    models = [
        Model(
            PixelProbe(jnp.ones((1, 8, 8), complex)),
            Volume(jnp.asarray(v), 0.5, tilts, taper=0.0),
            FreeScan(PerShot(jnp.zeros((1, 2)))),
            Grid((8, 8), 0.5, 200.0),
        )
        for v in cut
    ]
    rows = report(*models, tmp_path)
    figures = {"fsc.png", "fsc.csv", "fsc_directions.png", "fsc_control.png", "spectrum_a.png", "spectrum_b.png"}
    assert figures == {path.name for path in tmp_path.iterdir()}
    signal = gaussians(places) - gaussians(places).mean()
    shell = fourier_correlation(signal, signal, 0.5, taper(signal.shape)).frequency
    power = [fourier_power(v, shell) for v in (signal, noise[0])]
    expected = shell[np.flatnonzero(power[0] / (power[0] + power[1]) < 0.143)[0]]
    found = float(rows["0.143 resolution"].split()[0])
    assert 1 / found == pytest.approx(expected, rel=0.1)
    assert float(rows["correlation of the potentials"]) > 0.9


def fourier_power(values, frequency):
    """Mean power in shells of these middles, under the window of the report."""
    spectrum = np.abs(np.fft.fftn((values - values.mean()) * taper(values.shape))) ** 2
    k = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n, 0.5) for n in values.shape], indexing="ij")))
    index = np.round(k / frequency[1]).astype(int)
    return np.array([spectrum[index == n].mean() for n in range(len(frequency))])


@pytest.mark.slow
def test_halves_of_a_series_share_nothing(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(write_job(job_of(series)))
    done = CliRunner().invoke(app, ["halves", "job.toml", "--by", "counts", "--out", "two"])
    assert done.exit_code == 0, done.output
    assert "0.143 resolution" in done.output
    assert {"fsc.csv", "fsc.png", "first", "second"} == {path.name for path in Path("two").iterdir()}
    shifts = [np.asarray(load(Path("two") / half / "start.h5").specimen.shift.values) for half in ("first", "second")]
    assert not np.array_equal(*shifts)  # each is aligned by itself


@pytest.mark.slow
def test_a_series_in_slabs_learns_as_on_one_device(series, tmp_path):
    tilted = JOB["volume"] | {"angles": False}
    whole = start(job_of(series, volume=tilted), tmp_path / "whole")
    split = start(job_of(series, volume=tilted, run={"devices": 4, "slabs": 2}), tmp_path / "split")
    assert split.finished
    np.testing.assert_allclose(split.history[-1].loss, whole.history[-1].loss, rtol=0.05)  # other batches
    assert load(split.folder / "result.h5").specimen.potential.shape == split.model.specimen.potential.shape


@pytest.mark.slow
def test_slabs_with_free_angles_give_the_volume_and_the_poses_of_one_device(series):
    """One view, all of its shots in a batch: so that the batches are the same; Adam makes much of rounding in vacuum."""
    ended = []
    for run in ({"devices": 1}, {"devices": 4, "slabs": 2}):
        loop = loop_of(job_of(series, run=run, views={"epochs": 0}, stage=[JOB["stage"][1] | {"epochs": 5}]))
        loop.leave_out({0, 2})
        progress = Progress(loop.first_model())
        assert loop.run(progress) == "finished"
        ended.append(progress)
    one, split = (p.model.specimen for p in ended)
    np.testing.assert_allclose([r.loss for r in ended[1].history], [r.loss for r in ended[0].history], rtol=1e-6)
    assert np.abs(one.angles.values[1]).max() > np.deg2rad(2)  # more than halos are made for in a large volume
    for name in ("angles", "tilt", "shift"):
        np.testing.assert_allclose(getattr(split, name).values, getattr(one, name).values, atol=1e-5)
    np.testing.assert_allclose(split.potential, one.potential, atol=1e-3 * float(one.potential.max()))


def test_a_view_that_turns_beyond_the_halo_of_slabs_ends_the_run_with_its_name(series):
    loop = loop_of(job_of(series, run={"devices": 4, "slabs": 2}, views={"epochs": 0}))
    good = Progress(loop.first_model())
    angles = good.model.specimen.angles.values.at[1, 0].set(np.deg2rad(-7.0))
    turned = Progress(eqx.tree_at(lambda m: m.specimen.angles.values, good.model, angles))
    name = "view 1 is turned about x by 7°, halos of slabs are made for 6°; use one slab"
    with pytest.raises(Diverged, match=f"in stage 'coarse', epoch 1 {name}"):
        loop._still_inside(turned, good)
    assert not turned.model.specimen.angles.values.any()  # the last good model is kept


def arrays(file: Path):
    return jax.tree.leaves(eqx.filter(load(file), eqx.is_array))


@pytest.mark.slow
def test_one_seed_decides_a_series_and_a_kill_on_four_devices_changes_nothing_on_two(series, tmp_path):
    run = {"devices": 4, "checkpoint_every": 1, "seed": 3}
    job = job_of(series, run=run)
    for name in ("whole", "again"):
        assert start(job, tmp_path / name).finished
    for file in ("views/view_02.h5", "start.h5", "result.h5"):
        for one, other in zip(*(arrays(tmp_path / name / file) for name in ("whole", "again")), strict=True):
            np.testing.assert_array_equal(one, other)
    watch = AfterViews(1)
    start(job_of(series, run=run | {"seed": 4}), tmp_path / "other", watch, watch.stop)
    (first,) = (tmp_path / "other" / "views").iterdir()
    pairs = zip(arrays(first), arrays(tmp_path / "whole" / "views" / first.name), strict=True)
    assert not all(np.array_equal(*pair) for pair in pairs)  # its batches were drawn by another lot
    assert killed(job, tmp_path / "run", after=3 * 14 + 1)  # in the second epoch, at whose end views move
    assert gone_on(tmp_path / "run", devices=2).finished
    for one, other in zip(*(arrays(tmp_path / name / "result.h5") for name in ("whole", "run")), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7 * np.abs(other).max())


def test_lots_of_poses_follow_the_seed(series):
    """Which patterns a Newton step of a view looks at: the same for the same seed, others for another one."""
    few = [JOB["stage"][1] | {"pose_shots": 3}]
    drawn = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        job = job_of(series, stage=few, run={"devices": 1, "seed": seed}, views={"epochs": 0})
        loop = loop_of(job)
        seen = drawn[name] = []
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(poses, "make_batch", lambda data, view, shots, size, seen=seen: seen.append([view, *shots]))
            patched.setattr(poses, "STEPS", {"all": lambda model, batch, budget: model})
            model = loop.first_model()
            for epoch in (0, 1):
                loop.between(model, 0, epoch)
    assert drawn["one"] == drawn["same"] != drawn["other"]
    assert drawn["one"][:3] != drawn["one"][3:]  # others in every epoch
