"""The job of a tilt series: what it says, what it is refused for, and what is made of it."""

import re
from pathlib import Path

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tilts import JOB, job_of
from typer.testing import CliRunner

from jaxptycho import PixelProbe, make_batch, per_part, read
from jaxptycho.analysis.errors import probe_fidelity
from jaxptycho.cli.files import check
from jaxptycho.cli.main import app
from jaxptycho.inverse.solvers.preconditioning import measured, shell_growth
from jaxptycho.inverse.step import owned, trainable
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.build import build_optimiser
from jaxptycho.jobs.reading import kind_of, read_job
from jaxptycho.jobs.runner import loop_of
from jaxptycho.jobs.tomogram import alone, series_of
from jaxptycho.jobs.tomogram_schema import TomogramJob


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
    above = whole.specimen.above
    np.testing.assert_allclose(thin.probe.aberrations["C10"] - above, whole.probe.aberrations["C10"].values, atol=1e-4)
    np.testing.assert_allclose(whole.probe.dose.values, [data.dose(view).mean() for view in range(3)], rtol=1e-5)


def test_the_defocus_of_the_file_is_that_of_the_simulation(series):
    """Both probes, brought to one height: what was simulated at the entrance, and what the job starts from."""
    data, truth = read(series), read_truth(series)
    model = series_of(job_of(series), data)
    first = -model.specimen.above  # height of the first slice
    true = PixelProbe(jnp.asarray(truth["probe"][0])).propagate(data.grid, first - truth["origin_angstrom"][0])
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


def test_the_memory_that_validate_prints_is_that_of_a_step(series):
    """Of one that is compiled as a run compiles it. The plan is the larger: it counts the gradient by angles and shifts,
    too, which no step of this stage takes.
    """
    volume = {"size_angstrom": [40.0] * 3, "slices": 4, "kernel": "linear", "isolated": True}
    job = job_of(series, volume=volume, views={"epochs": 0}, stage=[JOB["stage"][1]])
    loop = loop_of(job)
    model = owned(loop.first_model())
    state, batch = loop.first_state(0, model), make_batch(loop.data, 0, range(14), 16)
    step = loop.tools(0, model).step
    leaves, structure = jax.tree.flatten((model, state))
    arrays, others = eqx.partition(tuple(leaves), eqx.is_array)

    def program(arrays, batch):
        model, state = structure.unflatten(eqx.combine(arrays, others))
        model, state, info = step(model, state, batch)
        return eqx.filter(tuple(jax.tree.leaves((model, state))), eqx.is_array), info

    batch = jax.tree.map(jnp.asarray, batch)
    sizes = jax.jit(program, donate_argnums=0).lower(arrays, batch).compile().memory_analysis()
    taken = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + sizes.output_size_in_bytes
    taken -= sizes.alias_size_in_bytes
    said = float(re.match(r"([\d.]+) MB", check(job)["memory of a step"])[1]) * 1e6
    assert taken > 1.5 * model.specimen.potential.nbytes  # with what the optimiser remembers
    assert taken < said < 2.5 * taken


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


@pytest.mark.parametrize("angles", [False, True])
def test_views_have_small_angles_where_the_job_wants_them(series, angles):
    """Nominal ones too, as where the views are left out: turning about y alone takes a third of the time."""
    job = job_of(series, volume=JOB["volume"] | {"angles": angles}, views={"epochs": 0})
    specimen = series_of(job, read(series)).specimen
    assert (specimen.angles is not None) == angles
