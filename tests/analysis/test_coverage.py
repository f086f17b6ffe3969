"""What a tilt series measures in Fourier space, against closed forms and a published experiment."""

import numpy as np
import pytest
from models import rng

from jaxptycho.analysis.coverage import TiltSeries, coverage, in_cones, in_thin_slabs, in_wedge
from jaxptycho.figures.depth import draw_coverage

TELLURIUM = TiltSeries(
    np.deg2rad(np.linspace(-53, 53, 26)), semiangle=0.025, wavelength=0.04176, thickness=118.0
)


def test_the_tellurium_particle():
    """To 0.82 Å: 13 % by slabs, 63 % by cones, about 40 % of the ball in the wedge."""
    found = coverage(TELLURIUM, 0.82)
    ball = found.of_ball
    assert ball["slabs"] == pytest.approx(0.13, abs=0.005)
    assert ball["cones"] == pytest.approx(0.63, abs=0.005)
    assert ball["wedge"] == pytest.approx(1 - 106 / 180, abs=0.001)
    assert found.filled_wedge == pytest.approx(ball["filled"] / ball["wedge"])
    assert found.frequency[-1] < 1 / 0.82


def test_one_slab_is_a_slice_of_a_ball():
    """Of half-thickness h in a shell of radius k: h/k of it."""
    one = TELLURIUM._replace(tilts=np.array([0.3]), thickness=20.0)
    found = coverage(one, 1.0, shells=20)
    expected = np.minimum(0.5 / 20 / found.frequency, 1)
    np.testing.assert_allclose(found.slabs[1:], expected[1:], rtol=0.05)


def test_one_cone_of_a_flat_ewald_sphere():
    """λ → 0: |k_z| ≤ α k_r is the part sin(arctan α) of every shell beyond the slab."""
    one = TiltSeries(np.array([-0.4]), semiangle=0.2, wavelength=1e-6, thickness=1e4)
    np.testing.assert_allclose(
        coverage(one, 1.0, shells=8).cones, np.sin(np.arctan(0.2)), rtol=0.02
    )


def test_the_wedge_is_on_the_right_side():
    """Views from 0 to +60° lie in the planes k_z = k_x tan θ: the wedge is from 60 to 180°."""
    tilts = np.deg2rad([0.0, 30.0, 60.0])
    angle = np.deg2rad(np.arange(-179.5, 180, 1.0))
    inside = in_wedge(np.sin(angle), 0.7, np.cos(angle), tilts)
    np.testing.assert_array_equal(inside, np.rad2deg(angle) % 180 > 60)
    series = TELLURIUM._replace(tilts=tilts)
    seen = in_thin_slabs(np.sin(tilts), 0.2, np.cos(tilts), series)
    assert seen.all()
    assert not in_thin_slabs(np.sin(-tilts[1:]), 0.2, np.cos(-tilts[1:]), series).any()


def test_friedel_mates_and_mirrors_are_measured_alike():
    k = rng(0).uniform(-1, 1, (3, 5000))
    for measured in (in_thin_slabs, in_cones):
        here = measured(*k, TELLURIUM)
        assert 0.05 < here.mean() < 0.95
        np.testing.assert_array_equal(here, measured(*-k, TELLURIUM))
        np.testing.assert_array_equal(here, measured(k[0], -k[1], k[2], TELLURIUM))
    assert not np.any(in_thin_slabs(*k, TELLURIUM) & ~in_cones(*k, TELLURIUM))


def test_the_tilt_step_of_the_design_leaves_no_gap():
    from jaxptycho.analysis.design import tilt_step

    k, angle = 1.0, np.deg2rad(np.linspace(5, 40, 2001))
    gaps = []
    for factor in (0.99, 1.03):  # tan and arc differ by less
        step = factor * tilt_step(0.02, 0.0251, 1 / k)
        series = TiltSeries(step * np.arange(40), 0.02, 0.0251, 1e6)
        gaps.append(np.mean(~in_cones(k * np.sin(angle), 0.0, k * np.cos(angle), series)))
    assert gaps[0] == 0 < gaps[1]


def test_the_figure_names_the_parts():
    figure = draw_coverage(TELLURIUM, 0.82, pixels=101)
    words = " ".join(text.get_text() for text in figure.axes[1].get_legend().get_texts())
    assert "cones (multislice): 63 %" in words
    assert "slabs (single slice): 12.8 %" in words


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (TELLURIUM._replace(tilts=np.zeros(0)), "at least one finite"),
        (TELLURIUM._replace(semiangle=-0.1), "more than 0"),
        (TELLURIUM._replace(tilts=np.array([-53.0, 53.0])), "radians"),
    ],
)
def test_impossible_series_get_one_sentence(series, words):
    with pytest.raises(ValueError, match=words):
        coverage(series, 0.82)
