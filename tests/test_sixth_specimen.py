"""A kind of specimen that one file defines, without an edit to the package: `kinds/blobs.py`."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import mrcfile
import numpy as np
import optax
import pytest
from models import GRID, any_batch, free_scan, pixel_probe
from models import thin as thin_model
from typer.testing import CliRunner

from jaxptycho import (
    Dataset,
    amplitude,
    batches,
    distribute,
    init_state,
    load,
    make_step,
    mesh,
    minimise,
    misfit,
    per_part,
    poisson,
    predict,
    write,
)
from jaxptycho.analysis.pictures import picture
from jaxptycho.analysis.scanned import scanned
from jaxptycho.analysis.truth import compare_phase
from jaxptycho.cli.main import app
from jaxptycho.distributed.sharding import place_on_mesh
from jaxptycho.distributed.slabs import layout as slabs
from jaxptycho.distributed.slabs.batching import arrange
from jaxptycho.figures import plots
from jaxptycho.inverse.constraints.registry import build
from jaxptycho.inverse.illumination import illumination
from jaxptycho.inverse.penalties import l1, missing_cone, sum_of, tikhonov, total_variation
from jaxptycho.io.exports import export
from jaxptycho.io.native import write_native
from jaxptycho.jobs import runner
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import resume, start
from jaxptycho.jobs.writing import write_job
from jaxptycho.reports.compare import compare_models, compare_results
from jaxptycho.start.reslice import with_slices

pytestmark = pytest.mark.usefixtures("quick_to_compile")

KINDS = Path(__file__).parent / "helpers" / "kinds"
sys.path.insert(0, str(KINDS))
from blobs import Bare, Blobs, Relief  # noqa: E402

FIELD = (48, 44)
SHOTS = 12
ORIGIN = np.array([-2.0, 1.0])


def thin(**parts):
    """A model of two probe modes that scans the field of the specimens below."""
    return thin_model(**({"scan": free_scan(field=FIELD, n=SHOTS)} | parts))


def blobs(slices=2, peak=0.4, move=0.0) -> Blobs:
    rng = np.random.default_rng(3)
    size = np.array(FIELD) * GRID.pixel
    positions = ORIGIN + rng.uniform(0.3, 0.7, (slices, 3, 2)) * size + move
    peaks = jnp.asarray(rng.uniform(0.5, 1.0, (slices, 3)) * peak)
    return Blobs(jnp.asarray(positions), peaks, jnp.array(8.0), jnp.asarray(ORIGIN), 0.9, FIELD)


def relief() -> Relief:
    heights = 40 * np.random.default_rng(4).uniform(0, 1, (2, *FIELD))
    return Relief(jnp.asarray(heights), jnp.asarray(ORIGIN), 0.01)


def measured(model, n=SHOTS) -> Dataset:
    counts = np.fft.fftshift(np.asarray(predict(model, np.arange(n))), axes=(1, 2))
    return Dataset(counts, np.asarray(model.scan.positions.values), GRID)


def test_blobs_scatter_as_the_slices_that_they_are():
    model = thin(specimen=blobs())
    shown = replace(model, specimen=model.specimen.in_slices(GRID))
    seen = eqx.filter_jit(predict)
    np.testing.assert_allclose(
        seen(model, np.arange(SHOTS)), seen(shown, np.arange(SHOTS)), rtol=1e-9
    )


@pytest.mark.slow
def test_positions_and_peaks_are_refined_from_patterns():
    truth = thin(specimen=blobs(1))
    first = replace(truth, specimen=replace(blobs(1, move=0.15), peaks=jnp.full((1, 3), 0.2)))
    falling = [optax.adam(optax.cosine_decay_schedule(rate, 800)) for rate in (5e-2, 2e-2)]
    rates = dict(zip(("specimen.positions", "specimen.peaks"), falling, strict=True))
    drawn = batches(measured(truth), SHOTS, 800)
    found = minimise(misfit(amplitude), first, drawn, per_part(rates))[0]
    np.testing.assert_allclose(
        found.specimen.positions, truth.specimen.positions, atol=0.02
    )  # Å, from 0.15
    np.testing.assert_allclose(found.specimen.peaks, truth.specimen.peaks, atol=0.02)


def test_a_step_moves_blobs_and_leaves_what_is_fixed():
    model = jax.tree.map(jnp.asarray, thin(specimen=blobs()))
    optimiser = per_part(specimen=optax.adam(1e-2))
    step = make_step(misfit(poisson), optimiser, build("positivity", model))
    batch = any_batch(model, np.arange(SHOTS))
    before = jax.tree.map(jnp.copy, model)
    after, _, info = step(model, init_state(optimiser, model), batch)
    assert np.isfinite(info["loss"])
    assert not np.allclose(after.specimen.positions, before.specimen.positions)
    np.testing.assert_array_equal(after.specimen.thickness, before.specimen.thickness)


@pytest.mark.parametrize("made", [blobs, relief], ids=["blobs", "relief"])
def test_results_exports_figures_and_comparison(made, tmp_path):
    model = thin(specimen=made())
    write(tmp_path / "a.h5", model)
    back = load(tmp_path / "a.h5")
    assert type(back.specimen) is type(model.specimen)
    other = replace(model, probe=pixel_probe(seed=5))
    write(tmp_path / "b.h5", other)
    export(model, tmp_path / "phase.mrc", cropped=False)
    held = model.specimen.in_slices(GRID)
    with mrcfile.open(tmp_path / "phase.mrc") as file:
        np.testing.assert_allclose(file.data, held.stack(), rtol=1e-6, atol=1e-7)
        assert held.labels["phase"].split()[0] in str(file.header.label)
    assert picture(model).phase.shape[0] == 2
    drawn = plots.draw_object(picture(model))
    assert drawn.axes
    expected = model.specimen.phase_per_slice(GRID).sum(0)
    assert scanned(model)[0].stop <= FIELD[0]
    agreement = compare_phase(
        np.asarray(expected), model, np.asarray(expected), GRID.pixel, truth_origin=ORIGIN
    )
    assert agreement.correlation > 0.999
    with pytest.raises(ValueError, match="holds no atoms"):
        export(model, tmp_path / "atoms.xyz")
    with pytest.raises(ValueError, match="has no absorption"):
        export(model, tmp_path / "none.mrc", what="absorption")


def test_penalties_see_the_phase_of_blobs():
    model = thin(specimen=blobs())
    shown = replace(model, specimen=model.specimen.in_slices(GRID))
    terms = l1(1.0), tikhonov(1.0), total_variation(1.0, along="volume"), missing_cone(1.0, 20.0)
    both = eqx.filter_jit(lambda m: jnp.stack([penalty(m) for penalty in terms]))
    np.testing.assert_allclose(both(model), both(shown), rtol=1e-9)
    slope = eqx.filter_jit(eqx.filter_grad(sum_of(*terms)))(model).specimen
    assert np.abs(slope.peaks).min() > 0
    assert np.abs(slope.positions).max() > 0


def test_constraints_act_where_they_have_a_meaning():
    dark = thin(specimen=eqx.tree_at(lambda s: s.peaks, blobs(), jnp.full((2, 3), -0.2)))
    np.testing.assert_array_equal(build("positivity", dark)(dark).specimen.peaks, 0)
    with pytest.raises(ValueError, match="Blobs has no phase in slices"):
        build("gaussian_in_plane", dark, sigma_angstrom=1.0)(dark)
    model = thin(specimen=blobs())
    away = replace(
        model,
        scan=model.scan.move(jnp.array([0.3, -0.2])),
        specimen=model.specimen.move(jnp.array([0.3, -0.2])),
    )
    back = build("position_recentring", model)(away)
    np.testing.assert_allclose(back.specimen.positions, model.specimen.positions, atol=1e-9)
    np.testing.assert_allclose(
        predict(back, np.arange(SHOTS)), predict(model, np.arange(SHOTS)), rtol=1e-6, atol=1e-9
    )
    heights = thin(specimen=relief())
    smooth = build("gaussian_in_plane", heights, sigma_angstrom=1.0)(heights)
    assert float(jnp.var(smooth.specimen.height)) < float(jnp.var(heights.specimen.height))
    np.testing.assert_allclose(
        l1(1.0)(heights), 0.01 * heights.specimen.height.sum() / np.prod(FIELD), rtol=1e-9
    )


def test_slices_are_cut_by_the_kind_itself():
    model = thin(specimen=blobs(1))
    cut = with_slices(model, 4)
    np.testing.assert_allclose(
        cut.specimen.phase_per_slice(GRID).sum(0), model.specimen.phase_per_slice(GRID)[0]
    )
    np.testing.assert_allclose(cut.specimen.thicknesses(GRID), 2.0)
    with pytest.raises(ValueError, match="Relief cannot be cut into 3 slices"):
        with_slices(thin(specimen=relief()), 3)


def test_heights_fall_into_slabs_and_blobs_say_why_not():
    model = thin(specimen=relief())
    devices, batch = mesh(2, 2), any_batch(model)
    placed = place_on_mesh(model, devices)
    ready = arrange(batch, slabs.homes(model, 0, 2), devices)
    value, slope = eqx.filter_jit(eqx.filter_value_and_grad(distribute(misfit(poisson), devices)))(
        placed, ready
    )
    alone, expected = eqx.filter_value_and_grad(misfit(poisson))(model, batch)
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_allclose(slope.specimen.height, expected.specimen.height, atol=1e-6)
    with pytest.raises(ValueError, match="Blobs cannot be split into slabs"):
        slabs.stacks(thin(specimen=blobs()))


def test_slices_alone_are_enough(tmp_path):
    bare = Bare(blobs())
    model, known = thin(specimen=bare), thin(specimen=blobs())
    np.testing.assert_allclose(bare.thicknesses(GRID), 8.0)
    np.testing.assert_allclose(bare.slices_origin(GRID), ORIGIN)
    np.testing.assert_allclose(bare.phase_per_slice(GRID), blobs().phase_per_slice(GRID), atol=1e-9)
    np.testing.assert_allclose(illumination(model), illumination(known))
    write(tmp_path / "bare.h5", model)
    load(tmp_path / "bare.h5")
    export(model, tmp_path / "bare.mrc")
    assert compare_models(model, known, None)["correlation of the phases"] == "1.0000"
    with pytest.raises(ValueError, match="reaches ±π"):
        Bare(blobs(peak=8.0)).in_slices(GRID)
    with pytest.raises(ValueError, match="Bare cannot be moved"):
        build("position_recentring", model)(model)
    with pytest.raises(ValueError, match="Bare cannot be cut into 3 slices"):
        with_slices(model, 3)
    with pytest.raises(ValueError, match="Bare has no phase in slices; define its"):
        jax.jit(l1(1.0))(model)


# a job with a module of its own beside it


@pytest.fixture
def job(tmp_path):
    """A job file beside `mykinds.py`, whose specimen is made by `mykinds:make`."""
    truth = thin(scan=free_scan(field=FIELD, n=24), specimen=blobs(1))
    write_native(tmp_path / "scan.h5", measured(truth, 24))
    shutil.copy(KINDS / "blobs.py", tmp_path / "mykinds.py")
    text = """
data.file = "scan.h5"
data.hold_out = 0.1
probe.start = "mean_pattern"
specimen.kind = "mykinds:make"
specimen.options = {blobs = 3, width = 0.9}
run.devices = 1
run.checkpoint_every = 1
[[step]]
kind = "refine"
epochs = 2
batch = 11
rates = {"specimen.positions" = 1e-2, "specimen.peaks" = 1e-2}
penalty = [{kind = "l1", weight = 1e-3}]
constraint = [{kind = "positivity"}]
"""
    path = tmp_path / "job.toml"
    path.write_text(text)
    yield path
    sys.modules.pop("mykinds", None)


def test_a_job_makes_its_specimen_of_the_module_beside_it(job, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)  # the module is found beside the job from any folder
    made = read_job(job)
    assert made.specimen.kind == f"{tmp_path / 'mykinds.py'}:make"
    (tmp_path / "run.toml").write_text(write_job(made))
    assert read_job(tmp_path / "run.toml").specimen == made.specimen
    specimen = build_model(made, read_data(made)).specimen
    assert type(specimen).__name__ == "Blobs"
    assert (specimen.peaks.shape, specimen.width) == ((1, 3), 0.9)
    with runner.Runner(made, tmp_path / "run") as checked:  # as before anything is written
        assert type(checked.check().specimen).__name__ == "Blobs"


@pytest.mark.slow
def test_a_job_of_its_own_kind_is_run_resumed_compared_and_exported(job, tmp_path):
    made = read_job(job)
    first = start(made, tmp_path / "a")
    assert first.finished
    assert (tmp_path / "a" / "figures" / "object.png").exists()
    stops = iter([None, "a test"])
    half = start(made, tmp_path / "b", stop=lambda: next(stops, "a test"))
    assert not half.finished
    again = resume(tmp_path / "b")
    assert again.finished
    np.testing.assert_allclose(again.model.specimen.peaks, first.model.specimen.peaks)
    rows = compare_results(tmp_path / "a", tmp_path / "b")
    assert rows["correlation of the phases"] == "1.0000"
    exported = CliRunner().invoke(app, ["export", str(tmp_path / "a"), str(tmp_path / "a.mrc")])
    assert exported.exit_code == 0, exported.output


@pytest.mark.parametrize(
    ("specimen", "said"),
    [
        ({"kind": "nowhere:make"}, "nowhere:make cannot be imported"),
        ({"kind": "blobs:nothing"}, "blobs holds no nothing"),
        ({"kind": "blobs:np"}, "is a module; name a function or class"),
        (
            {"kind": "blobs:make", "options": {"size": 3}},
            "refused: .*unexpected keyword argument 'size'",
        ),
        ({"kind": "builtins:dict", "options": {}}, "refused|must return a specimen"),
        ({"kind": "complx"}, "did you mean complex"),
        ({"kind": "phase", "options": {"blobs": 3}}, "keywords of a module:function"),
        ({"kind": ":make"}, "is no reference"),
    ],
)
def test_what_a_job_cannot_name_is_refused_in_one_sentence(job, tmp_path, specimen, said):
    values = {"data": {"file": str(tmp_path / "scan.h5")}, "probe": {"start": "mean_pattern"}}
    with pytest.raises(ValueError, match=said):
        build_model(job := make_job(values | {"specimen": specimen}), read_data(job))
