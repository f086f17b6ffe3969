"""Refinement of numbers of the geometry: maps of scan and specimen, the step, and its errors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import pixel_probe
from scans import SMALL, blob_model, measured_blobs, sum_of_blobs

from jaxptycho import AffineScan, PerShot
from jaxptycho.inverse.geometry import block_of_shots, refine_geometry
from jaxptycho.inverse.geometry_numbers import numbers_of, values_of
from jaxptycho.model import probe_positions
from jaxptycho.parts.mapping import map_specimen
from jaxptycho.parts.scan import linear_map
from jaxptycho.physics.linear_maps import map_planes

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@pytest.mark.parametrize("turn", [0.0, 0.1])
def test_planes_are_mapped_as_the_function_that_they_sample(turn):
    spots = np.array([[14.0, 17.0], [20.0, 12.0]])
    y, x = np.mgrid[:34, :30].astype(float)
    matrix = np.asarray(linear_map((1.1, 0.95), 0.05, turn))
    middle = np.array([16.0, 15.0])
    away = np.stack([y - middle[0], x - middle[1]])
    back = np.tensordot(np.linalg.inv(matrix), away, 1) + middle[:, None, None]
    mapped = map_planes(
        jnp.asarray(sum_of_blobs(y, x, spots)[None]), jnp.asarray(matrix), (16.0, 15.0)
    )
    np.testing.assert_allclose(mapped[0], sum_of_blobs(*back, spots), atol=2e-3)


def test_the_derivative_of_mapped_planes_is_that_of_finite_differences():
    rng = np.random.default_rng(0)
    planes = jnp.asarray(rng.normal(size=(2, 9, 8)) + 1j * rng.normal(size=(2, 9, 8)))
    direction = jnp.asarray(rng.normal(size=(2, 2)))

    def mapped(t):
        return map_planes(planes, jnp.eye(2) + 0.05 + t * direction, (4.2, 3.7))

    with jax.enable_x64(True):
        planes = planes.astype(complex)
        slope = jax.jvp(mapped, (0.0,), (1.0,))[1]
        numeric = (mapped(1e-5) - mapped(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, numeric, atol=1e-4)


@pytest.mark.parametrize("kind", ["free", "affine"])
def test_scan_and_specimen_move_together(kind):
    model = blob_model()
    places = probe_positions(model)
    if kind == "affine":
        nominal = PerShot(jnp.asarray(places - 0.3))
        model = replace(
            model,
            scan=AffineScan(
                nominal, jnp.eye(2), jnp.full(2, 0.3), jnp.zeros(2), jnp.asarray([1.0, 2.0])
            ),
        )
    matrix = np.asarray(linear_map((1.03, 0.98), 0.01, 0.02))
    about = np.array([2.0, 3.0])
    scan = model.scan.map_linearly(jnp.asarray(matrix), jnp.asarray(about))
    found = probe_positions(replace(model, scan=scan))
    np.testing.assert_allclose(found, (places - about) @ matrix.T + about, atol=1e-5)
    moved = map_specimen(model.specimen, SMALL, jnp.asarray(matrix), jnp.asarray(about))
    assert moved.phase.shape == model.specimen.phase.shape


def test_values_of_a_scan_are_those_of_its_map():
    model = blob_model()
    data = measured_blobs(model)
    names = ["scan.rotation", "scan.scale", "probe.defocus", "detector.shift"]
    numbers = numbers_of(model, names)
    by = jnp.asarray([0.02, 0.01, 5.0, 0.001, -0.002])
    moved = numbers.moved(model, by, jnp.asarray([1.0, 1.0]))
    found = dict(zip(numbers.names, values_of(moved, data, numbers), strict=True))
    assert found["scan.scale"] == pytest.approx(1.02, abs=1e-3)
    assert found["scan.rotation"] == pytest.approx(np.arctan(0.01 / 1.02), abs=1e-4)
    assert found["probe.defocus"] == pytest.approx(65.0, abs=1e-3)
    assert found["detector.shift[1]"] == pytest.approx(-0.002, abs=1e-6)


WRONG = ["scan.scale", "scan.rotation", "probe.defocus", "probe.semiangle"]
BY = np.array([0.004, 0.005, 1.5, 2e-4])


def test_a_step_finds_numbers_within_their_errors():
    true = blob_model(side=7)
    numbers = numbers_of(true, WRONG)
    middle = jnp.asarray(probe_positions(true).mean(0))
    model = numbers.moved(true, jnp.asarray(-BY), middle)
    data = measured_blobs(true, seed=1)
    found = np.zeros(len(BY))
    for _ in range(3):
        model, correction = refine_geometry(model, data, WRONG, eliminated=["specimen"])
        found += correction.change
    assert correction.names == tuple(WRONG)
    assert (np.abs(found - BY) < 4 * correction.errors).all()
    assert (correction.errors < 0.5 * np.abs(BY)).any()


def test_blocks_are_neighbours():
    data = measured_blobs(blob_model())
    shots = block_of_shots(data, np.arange(25), 9, seed=3)
    assert len(shots) == 9
    assert np.ptp(data.positions[0][shots], axis=0).max() < 4.0
    np.testing.assert_array_equal(block_of_shots(data, np.arange(4), 9), np.arange(4))


@pytest.mark.parametrize(
    ("names", "eliminated", "words"),
    [
        ([], ["specimen"], "nothing was to be calibrated"),
        (["scan.turn"], ["specimen"], "the numbers of a scan are scan.scale"),
        (["probe.defocis"], ["specimen"], "no parameter 'probe.defocis'"),
        (["specimen.phase"], ["probe"], "at most 64"),
        (["scan.scale"], ["scan"], "no pattern tells them apart"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(names, eliminated, words):
    model = blob_model()
    with pytest.raises(ValueError, match=words):
        refine_geometry(model, measured_blobs(model), names, eliminated=eliminated)


def test_defocus_is_part_of_free_waves():
    model = replace(blob_model(), probe=pixel_probe(grid=SMALL))
    with pytest.raises(ValueError, match="free waves"):
        refine_geometry(model, measured_blobs(model), ["probe.defocus"])
