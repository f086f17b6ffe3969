"""Cautions about tilt series as their users write them: tilts, origins, repeated and lost views."""

import h5py
import numpy as np
import pytest
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.start.cautions import cautions

TILTS = np.linspace(-45, 45, 5)


@pytest.fixture(scope="module")
def views():
    counts, places = zip(*(blobs(side=6, seed=seed) for seed in range(5)), strict=True)
    return np.stack(counts), np.stack(places) - np.mean(places[0], 0)


@pytest.fixture
def written(views, tmp_path):
    """Function that writes a series with some arrays changed, and reads it."""

    def write(**changes):
        counts, places = views
        arrays = {"counts": counts, "positions": places, "tilt_deg": TILTS} | changes
        with h5py.File(tmp_path / "series.h5", "w") as file:
            file.attrs.update(voltage_kv=GRID.voltage_kv, pixel_angstrom=0.3, **ABOUT)
            for name, values in arrays.items():
                file[name] = values
        return jp.read(tmp_path / "series.h5")

    return write


def keys(data):
    return [caution.key for caution in cautions(data)]


def test_a_sound_series_gives_no_caution(written, views):
    assert keys(written()) == []
    off_axis = views[1] + np.array([3.0, 40.0])
    assert keys(written(positions=off_axis)) == []
    assert keys(written(tilt_deg=TILTS[::-1])) == []


@pytest.mark.parametrize("corner", [(1, 1), (-1, 1), (-1, -1)])
def test_positions_from_a_corner(corner, written, views):
    places = views[1] - views[1].min(axis=(0, 1))
    data = written(positions=places * np.array(corner))
    assert keys(data) == ["data.origin"]


def test_views_of_one_direction(written):
    assert keys(written(tilt_deg=np.full(5, 3.0))) == ["tilt_deg"]


def test_a_view_that_was_copied(written, views):
    counts = views[0].copy()
    counts[3] = counts[1]
    (caution,) = cautions(written(counts=counts))
    assert "view 3 has the patterns of view 1" in caution.text


def test_a_view_without_positions_is_left_out(written, views):
    places = views[1].copy()
    places[2] = np.nan
    places[4, 7] = np.nan
    with (
        pytest.warns(UserWarning, match=r"left out 1 of 5 views, .*: 2 \(tilt 0°\)"),
        pytest.warns(UserWarning, match="left out 1 of 36 shots of view 3 .*position"),
    ):
        data = written(positions=places)
    assert data.n_shots == [36, 36, 36, 35]
    np.testing.assert_allclose(np.rad2deg(data.tilts), [-45, -22.5, 22.5, 45])
    np.testing.assert_array_equal(data.dose(2), views[0][3].sum((1, 2)))


REFUSED = {
    "a tilt that is none": ({"tilt_deg": [0, 1, np.nan, 3, 4]}, "the tilt of view 2 is nan"),
    "a column of tilts": ({"tilt_deg": TILTS[:, None]}, r"tilts have shape \(5, 1\); one is"),
    "tenths of a degree": ({"tilt_deg": 10 * TILTS}, r"/tilt_deg in .* reaches 450, .* degrees"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tilts_that_cannot_be_are_refused_in_one_line(name, written):
    changes, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as refusal:
        written(**changes)
    assert "\n" not in str(refusal.value)


def test_a_view_far_from_the_axis_is_named(written, views):
    places = views[1].copy()
    places[4] += 1e5
    with pytest.raises(ValueError, match="positions of view 4 reach 1e"):
        written(positions=places)
