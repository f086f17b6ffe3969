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
from stepping import loop_of
from tilts import ALIGN, COARSE, FINE, LINEAR, SERIES, VIEWS, VOLUME, job_of
from typer.testing import CliRunner

from jaxptycho import PixelProbe, make_batch, per_part, read
from jaxptycho.analysis.errors import probe_fidelity
from jaxptycho.cli.main import app
from jaxptycho.inverse.solvers.preconditioning import measured, shell_growth
from jaxptycho.inverse.step import copy_for_donation, init_state, trainable
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.describe import check_job
from jaxptycho.jobs.optimisation import build_optimiser
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import Runner
from jaxptycho.jobs.series import series_model, view_model


def test_the_job_of_a_series_is_written_checked_and_inspected(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    written = run(app, ["new", str(series), "--out", "job.toml"])
    assert "jaxptycho run job.toml" in written.output
    job = read_job(Path("job.toml"))
    assert job.is_series
    assert [step.kind for step in job.step] == ["views", "align", "refine", "refine"]
    assert job.probe.semiangle_mrad == 25.0
    checked = run(app, ["validate", "job.toml"])
    assert checked.exit_code == 0, checked.output
    assert "voxels" in checked.output
    assert "+40" in run(app, ["inspect", str(series)]).output


def test_a_volume_within_the_scan_is_refused_unless_it_is_isolated(series):
    small = VOLUME | {"size_angstrom": [3.0, 4.0, 4.0], "isolated": False}
    with pytest.raises(
        ValueError,
        match=r"view 0, at -30°, is scanned to .* where the volume ends at .* \S*isolated = true",
    ):
        Runner(job_of(series, specimen=small), Path(".")).check()


def test_keys_without_meaning_for_a_series_are_refused(series):
    for section, name, value, said in (
        ("data", "near_field", True, "data.near_field"),
        ("probe", "basis", 4, "probe.basis"),
        ("probe", "kind", "relaxed", "probe.kind = 'relaxed'"),
        ("scan", "kind", "affine", "scan.kind"),
        ("propagator", "tilt_mrad", [0.0, 1.0], r"\[propagator\]"),
        ("propagator", "tilted_beam", True, r"\[propagator\]"),
        ("detector", "effective_distance_angstrom", 1e5, "detector.effective_distance_angstrom"),
        ("figures", "band_pass_angstrom", [1.0, 8.0], "figures.band_pass_angstrom"),
    ):
        with pytest.raises(ValueError, match=f"{said} does not apply to a tilt series"):
            job_of(series, **{section: {name: value}})
    with pytest.raises(ValueError, match=r"there is no key specimen.thickness_angstrom"):
        job_of(series, specimen=VOLUME | {"thickness_angstrom": 8.0})


def test_probe_and_camera_of_the_job_are_those_of_views_and_series(series):
    """The views' own models are as fine as that of all views, and count with the same camera."""
    camera = {"supersample": 2, "extend": 2, "background": 0.25, "gain": 1.0}
    vary = {"probe": "view", "detector.factor": "shot"}
    job = job_of(series, probe={"kind": "aberrated", "modes": 1}, detector=camera, vary=vary)
    data = read(series)
    thin, whole = view_model(job, data.view(1)), series_model(job, data)
    for model in (thin, whole):
        assert model.grid.shape == (96, 96)
        np.testing.assert_allclose(model.grid.pixel, 0.25)
        np.testing.assert_allclose(model.detector.counts, 0.25)
    assert whole.specimen.voxel == (0.25, 0.25, 0.25)
    assert [
        thin.detector.detector.factor.values.shape,
        whole.detector.detector.factor.values.values.shape,
    ] == [
        (16,),
        (3, 16),
    ]
    above = whole.specimen.above
    np.testing.assert_allclose(
        thin.probe.aberrations["C10"] - above, whole.probe.aberrations["C10"].values, atol=1e-4
    )
    np.testing.assert_allclose(
        whole.probe.dose.values, [data.dose(view).mean() for view in range(3)], rtol=1e-5
    )


def test_the_defocus_of_the_file_is_that_of_the_simulation(series):
    """Both probes, brought to one height: what was simulated at the entrance, and what the job starts from."""
    data, truth = read(series), read_truth(series)
    model = series_model(job_of(series), data)
    first = -model.specimen.above  # height of the first slice
    true = PixelProbe(jnp.asarray(truth["probe"][0])).propagate(
        data.grid, first - truth["origin_angstrom"][0]
    )
    fidelity = probe_fidelity(
        np.asarray(model.probe.waves), np.asarray(true.waves), np.array(data.grid.pixel)
    ).fidelity
    assert fidelity > 0.999


def test_gradients_are_preconditioned_as_the_job_says(series, quick_to_compile):
    """W(k) in the beam's frame of the batch's view, and shells that grow: as by hand."""
    growing = {
        "kind": "shell_growth",
        "first_inverse_angstrom": 0.3,
        "last_inverse_angstrom": 0.9,
        "steps": 2,
    }
    terms = [{"kind": "measured", "semiangle_mrad": 25.0, "thickness_angstrom": 8.0}, growing]
    step = SERIES | {
        "epochs": 1,
        "optimiser": "sgd",
        "rates": {"specimen": 1.0},
        "precondition": terms,
    }
    job = job_of(series, step=[step])
    loop, model = loop_of(job)
    by_job = build_optimiser(job.step[0], model, 3)
    by_hand = per_part(
        specimen=optax.chain(measured(25.0, 8.0), shell_growth(0.3, 0.9, 2), optax.sgd(1.0))
    )
    params = trainable(model)
    noise = jnp.asarray(
        np.random.default_rng(0).normal(size=model.specimen.potential.shape),
        params.specimen.potential.dtype,
    )
    grads = eqx.tree_at(lambda m: m.specimen.potential, params, noise)
    batch = make_batch(loop.source.data, 2, range(4))
    found = []
    for optimiser in (by_job, by_hand):
        updates, _ = optimiser.update(
            grads, optimiser.init(params), params, model=model, batch=batch
        )
        found.append(np.asarray(updates.specimen.potential))
    np.testing.assert_array_equal(*found)
    plain = per_part(specimen=optax.sgd(1.0))
    whole = plain.update(grads, plain.init(params), params, model=model, batch=batch)[
        0
    ].specimen.potential
    assert 0 < np.linalg.norm(found[0]) < 0.4 * np.linalg.norm(whole)
    for wrong in ({"rates": {"probe": 1e-3}}, {"optimiser": "lbfgs"}):
        with pytest.raises(ValueError, match="they filter the gradient of the specimen"):
            Runner(job_of(series, step=[step | wrong]), Path(".")).check()


def test_the_memory_that_validate_prints_is_that_of_a_step(series):
    """Of one that is compiled as a run compiles it. The plan is the larger: it counts the gradient by angles and shifts,
    too, which no step of this refinement takes.
    """
    job = job_of(series, specimen=VOLUME | {"size_angstrom": [40.0] * 3, "slices": 4}, step=[FINE])
    loop, model = loop_of(job)
    model = copy_for_donation(model)
    state = init_state(loop._optimiser, model)
    batch, step = make_batch(loop.source.data, 0, range(14), 16), loop._step
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
    said = float(re.match(r"([\d.]+) MB", check_job(job)["memory of a step"])[1]) * 1e6
    assert taken > 1.5 * model.specimen.potential.nbytes  # with what the optimiser remembers
    assert taken < said < 2.5 * taken


def test_a_support_waits_for_the_volume_of_its_step(series):
    """There is one after `linear`, none where there was no such step or the one before resets the volume."""
    support = {"kind": "support", "blur_angstrom": 1.0}
    supported = FINE | {"constraint": [support]}
    Runner(job_of(series, step=[VIEWS, ALIGN, LINEAR, supported]), Path(".")).check()
    Runner(job_of(series, step=[FINE, supported]), Path(".")).check()
    for without in (
        [VIEWS, ALIGN, supported],
        [VIEWS, ALIGN, LINEAR, COARSE, supported],
        [supported],
    ):
        with pytest.raises(ValueError, match="a support of an empty specimen"):
            Runner(job_of(series, step=without), Path(".")).check()


@pytest.mark.filterwarnings("ignore:all 3 views are tilted")
@pytest.mark.filterwarnings("ignore:32 of 48 shots")
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
        Runner(job_of(bad), tmp_path).check()


@pytest.mark.parametrize("angles", [False, True])
def test_views_have_small_angles_where_the_job_wants_them(series, angles):
    """Nominal ones too, as without a step `views`: turning about y alone takes a third of the time."""
    job = job_of(series, specimen=VOLUME | {"angles": angles}, step=[FINE])
    specimen = series_model(job, read(series)).specimen
    assert (specimen.angles is not None) == angles
