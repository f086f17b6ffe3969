"""Positions in the frame of a stage: the same picture as from zero, and the file's own numbers on output."""

import re
import warnings
from dataclasses import replace

import h5py
import jax
import numpy as np
import optax
import pytest

import jaxptycho as jp
from jaxptycho.data.half_sets import checkerboard, thinned
from jaxptycho.io.cxi import export_cxi, read_cxi
from jaxptycho.io.export_formats import write_mrc
from jaxptycho.io.exports import quantity, voxels
from jaxptycho.io.native import read_native, write_native
from jaxptycho.io.results import load, load_attributes, write
from jaxptycho.jobs.describe import describe
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.reports.compare import common_phases
from jaxptycho.reports.evaluate import evaluate_scan

N, PIXEL, DOSE = 16, 0.3, 1e5
GRID = jp.Grid((N, N), PIXEL, 80.0)
ABOUT = {"semiangle_mrad": 50.0, "defocus_angstrom": 20.0}
PLACES = (
    np.stack(np.meshgrid(np.arange(5), np.arange(5), indexing="ij"), -1).reshape(-1, 2) * 4 * PIXEL
)
AWAY = [(0.0, 0.0), (1e6, 1e6), (1e8, -1e8), (-1e9, 1e9), (1e8, 0.0)]
far = pytest.mark.parametrize("away", AWAY, ids=str)


@pytest.fixture(scope="module")
def counts():
    """Patterns of a few phase blobs, by NumPy alone."""
    rng, k = np.random.default_rng(0), np.fft.fftfreq(N, PIXEL)
    k2 = k[:, None] ** 2 + k**2
    lens = (np.sqrt(k2) * GRID.wavelength <= 0.05) * np.exp(
        1j * np.pi * GRID.wavelength * k2 * 20.0
    )
    probe = np.fft.fftshift(np.fft.ifft2(lens, norm="ortho"))
    probe /= np.linalg.norm(probe)
    phase = true_phase()
    corners = np.rint(PLACES / PIXEL).astype(int)
    exits = [probe * np.exp(1j * phase[a : a + N, b : b + N]) for a, b in corners]
    patterns = [np.abs(np.fft.fftshift(np.fft.fft2(e, norm="ortho"))) ** 2 * DOSE for e in exits]
    return rng.poisson(patterns).astype(np.uint16)


def true_phase():
    """Phase [rad], whose pixel [0, 0] is at (−N/2, −N/2) pixels from the first position."""
    y, x = np.mgrid[: N + 17, : N + 17]
    blobs = np.random.default_rng(7).uniform(0, N + 17, (25, 2))
    return sum(0.5 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 6) for a, b in blobs)


def measured(counts, away=(0.0, 0.0), **more):
    return jp.Dataset(counts, PLACES + np.asarray(away), GRID, about=dict(ABOUT), **more)


def reconstructed(data, epochs=3):
    rates = jp.per_part(specimen=optax.adam(5e-3), probe=optax.adam(5e-3))
    return jp.minimise(
        jp.misfit(jp.amplitude),
        jp.first_model(data, specimen="phase"),
        jp.batches(data, size=25, epochs=epochs),
        rates,
    )[0]


@far
def test_positions_and_frame_add_up_to_those_given(counts, away):
    data = measured(counts, away)
    assert np.abs(data.positions[0]).max() < 100
    assert np.array_equal(data.positions[0] + data.frame, PLACES + away)
    assert data.frame == tuple(np.rint(data.frame))
    assert all(type(v) is float for v in data.frame)
    for a, f in zip(away, data.frame, strict=True):
        assert abs(f - a) < 10 if a else f == 0


@far
def test_a_model_in_single_precision_knows_its_positions_exactly(counts, away):
    with jax.enable_x64(False):
        model = jp.first_model(measured(counts, away))
        assert model.scan.positions.values.dtype == np.float32
        assert np.allclose(
            jp.model.probe_positions(model) + model.frame, PLACES + away, rtol=0, atol=2e-6
        )
        origin = np.asarray(model.specimen.origin, float)
    assert np.allclose(origin + model.frame - away, origin_of_zero(counts), rtol=0, atol=2e-6)


def origin_of_zero(counts):
    with jax.enable_x64(False):
        return np.asarray(jp.first_model(measured(counts)).specimen.origin, float)


def test_the_picture_is_the_same_as_with_positions_from_zero(counts):
    with jax.enable_x64(False):
        near, distant = (reconstructed(measured(counts, away)) for away in ((0, 0), (1e8, -1e6)))
        assert near.specimen.phase.std() > 0.008
        assert np.allclose(near.specimen.phase, distant.specimen.phase, atol=2e-3)


def test_ordinary_positions_keep_their_frame(counts):
    for away in (0.0, 50.0, -80.0):
        assert measured(counts, (away, away)).frame == (0.0, 0.0)
    places = PLACES / PIXEL * 2000 / 4 + 1e5  # a raster of holograms with pixels of 2000 Å
    wide = jp.Dataset(counts, places, jp.Grid((N, N), 2000.0, wavelength=0.7))
    assert wide.frame == (0.0, 0.0)
    assert np.array_equal(wide.positions[0], places)


def test_parts_of_the_data_share_the_frame_of_all(counts):
    data = measured(counts, (1e8, 1e8))
    black, white = checkerboard(data)
    parts = [
        data.subset(black[0]),
        data.subset(white[0]),
        thinned(data, 0),
        data.view(0),
        data.indexed(),
    ]
    assert {part.frame for part in parts} == {data.frame}
    one = data.subset([24])
    assert np.array_equal(one.positions[0] + one.frame, PLACES[[24]] + 1e8)


def test_several_views_share_one_frame(counts):
    places = [PLACES + 1e8, PLACES + 1e8 + 3.0]
    data = jp.Dataset([counts, counts], places, GRID, about=dict(ABOUT))
    assert all(
        np.array_equal(own + data.frame, given)
        for own, given in zip(data.positions, places, strict=True)
    )
    assert data.view(1).frame == data.frame


def test_one_wild_position_does_not_move_the_frame_from_the_scan(counts):
    places = PLACES + 1e8
    places[3] += 1e5
    with pytest.warns(UserWarning, match="left out 1 of 25 shots"):
        data = jp.Dataset(counts, places, GRID)
    np.testing.assert_array_equal(data.positions[0] + data.frame, np.delete(places, 3, 0))
    assert np.abs(data.positions[0]).max() < 100


@far
def test_native_files_get_their_own_numbers_back(counts, away, tmp_path):
    write_native(tmp_path / "a.h5", measured(counts, away))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["positions"][()], PLACES + away)
    again = read_native(tmp_path / "a.h5")
    assert np.array_equal(again.positions[0] + again.frame, PLACES + away)


@far
def test_results_hold_the_frame(counts, away, tmp_path):
    data = measured(counts, away)
    write(tmp_path / "result.h5", jp.first_model(data))
    model = load(tmp_path / "result.h5")
    assert model.frame == data.frame
    assert (
        tuple(load_attributes(tmp_path / "result.h5").get("frame_angstrom", (0.0, 0.0)))
        == data.frame
    )
    shown = describe(tmp_path / "result.h5")
    assert (
        ("positions counted from" in shown)
        == any(away)
        == ("positions counted from" in describe_written(data, tmp_path))
    )
    assert not any(away) or f"{data.frame[0]:.12g}" in shown["positions counted from"]


def describe_written(data, folder):
    write_native(folder / "data.h5", data)
    return describe(folder / "data.h5")


def test_cxi_files_far_from_zero_come_back(counts, tmp_path):
    data = measured(counts, (1e8, -3e7))
    model = jp.first_model(data)
    export_cxi(tmp_path / "a.cxi", model, data)
    with h5py.File(tmp_path / "a.cxi") as file:
        translation = file["entry_1/data_1/translation"][()]
        origin = file["entry_1/image_1/origin"][()]
    assert np.allclose(translation[:, 1] * 1e10, PLACES[:, 0] + 1e8, rtol=0, atol=1e-5)
    assert np.allclose(
        origin * 1e10, np.asarray(model.specimen.origin) + data.frame, rtol=0, atol=1e-5
    )
    again = read_cxi(tmp_path / "a.cxi")
    assert np.abs(again.positions[0]).max() < 100
    assert np.allclose(
        again.positions[0] + again.frame, PLACES + np.array([1e8, -3e7]), rtol=0, atol=1e-5
    )


def test_cxi_translations_in_single_precision_are_cautioned(counts, tmp_path):
    data = measured(counts, (1e8, 1e8))
    export_cxi(tmp_path / "a.cxi", jp.first_model(data), data)
    with h5py.File(tmp_path / "a.cxi", "r+") as file:
        stored = file["entry_1/sample_1/geometry_1/translation"][()]
        del file["entry_1/sample_1/geometry_1/translation"]
        file["entry_1/sample_1/geometry_1/translation"] = stored.astype(np.float32)
    with pytest.warns(
        UserWarning, match="translations in .* less than double precision and are rounded to 9.3 Å"
    ):
        read_cxi(tmp_path / "a.cxi")


def test_positions_in_single_precision_are_cautioned_where_it_matters(counts):
    with pytest.warns(UserWarning, match="less than double precision and are rounded to 8 Å"):
        jp.Dataset(counts, (PLACES + 1e8).astype(np.float32), GRID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jp.Dataset(counts, PLACES.astype(np.float32), GRID)
        jp.Dataset(counts, (PLACES + 2000).astype(np.float32), GRID)
        jp.Dataset(counts, np.rint(PLACES).astype(int) + 10**8, GRID)
        exact = jp.Dataset(counts, PLACES.astype(np.longdouble) + 1e8, GRID)
    assert np.array_equal(exact.positions[0] + exact.frame, PLACES + 1e8)


def test_a_tilt_series_is_never_moved_and_refused_far_from_its_axis(counts):
    def series(away):
        both = np.stack([counts, counts])
        return jp.Dataset(both, [PLACES + away] * 2, GRID, tilts=np.array([0, 0.1]))

    assert series(4000.0).frame == (0.0, 0.0)
    assert np.array_equal(series(4000.0).positions[0], PLACES + 4000)
    with pytest.raises(ValueError, match="required to be on the tilt axis"):
        series(1e8)


def test_results_of_different_frames_are_compared_where_both_were(counts):
    one, near = reconstructed(measured(counts, (1e8, 1e8))), reconstructed(measured(counts))
    with pytest.raises(ValueError, match="do not overlap"):  # nothing in common but what they count
        common_phases(one, near)
    for by in ((0, 0), (2, -1)):  # pixels, between the same scan in two frames
        y, x = 5.0 + np.array(one.frame) + PIXEL * np.array(by)
        other = reconstructed(
            jp.Dataset(counts, PLACES - 7.0, GRID, about=dict(ABOUT), frame=(y, x))
        )
        a, b, shift = common_phases(one, other)
        assert np.allclose(shift, np.negative(by), atol=0.2)
        assert a.shape == b.shape


def test_exports_place_voxels_in_the_frame_of_the_file(counts, tmp_path):
    near, distant = (jp.first_model(measured(counts, away)) for away in ((0, 0), (1e6, -1e8)))
    assert np.allclose(
        np.subtract(voxels(distant).corner, voxels(near).corner), (0, 1e6, -1e8), atol=1e-6, rtol=0
    )
    with pytest.warns(UserWarning, match="MRC files come in less than double precision"):
        write_mrc(tmp_path / "a.mrc", quantity(distant))
    write_mrc(tmp_path / "b.mrc", quantity(near))


def test_errors_name_places_in_the_frame_of_the_file(counts):
    model = jp.first_model(measured(counts, (1e8, 1e8)), margin=0.0)
    outside = jp.Dataset(counts, PLACES + 40.0, GRID, about=dict(ABOUT), frame=model.frame)
    moved = jp.first_model(outside)
    with pytest.raises(ValueError, match="y = 1000000"):
        jp.model.require_inside(replace(model, scan=moved.scan))


@pytest.mark.parametrize("periodic", [False, True])
def test_the_truth_is_where_the_file_has_it(counts, periodic):
    potential, corner = true_phase() / GRID.sigma, -N // 2
    period = len(potential) * PIXEL

    def judged(away):
        truth = {"pixel_angstrom": PIXEL, "positions": PLACES + away}
        if periodic:  # pixel [0, 0] at the origin
            truth |= {"projected_potential": np.roll(potential, (corner, corner), (0, 1))}
        else:
            origin = np.array([0.0, *(away + corner * PIXEL)])
            truth |= {"projected_potential": potential, "origin_angstrom": origin}
        return evaluate_scan(reconstructed(measured(counts, away), epochs=10), truth)

    near, distant = judged(np.zeros(2)), judged(np.rint(np.array([1e8, -1e6]) / period) * period)
    assert numbers(near["correlation of the phase"])[0] > 0.7
    for name in ("correlation of the phase", "shift removed"):
        assert numbers(near[name]) == pytest.approx(numbers(distant[name]), abs=0.02)
    assert numbers(distant["position error"])[0] < 1e-6


def numbers(words):
    return [float(found) for found in re.findall(r"[-+]?[\d.]+(?:e[-+]?\d+)?", words)]


def test_a_run_far_from_zero_restores_its_positions(counts, tmp_path):
    away = (1e8, -1e9)
    write_native(tmp_path / "data.h5", measured(counts, away))
    step = {"kind": "refine", "epochs": 2, "batch": 25, "rates": {"specimen": 5e-3}}
    job = make_job({"data": {"file": str(tmp_path / "data.h5"), "hold_out": 0.0}, "step": [step]})
    with jax.enable_x64(False):
        start(job, tmp_path / "run")
        model = load(tmp_path / "run" / "result.h5")
        assert np.allclose(
            jp.model.probe_positions(model) + model.frame, PLACES + away, rtol=0, atol=2e-6
        )
    assert "positions counted from" in describe(tmp_path / "run")
