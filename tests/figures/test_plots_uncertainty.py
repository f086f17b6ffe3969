"""Figures of uncertainties show what is known and leave blank what is not."""

import numpy as np
import pytest

from jaxptycho.figures.uncertainty import draw_deviation, draw_spread


def test_a_map_is_blank_where_nothing_is_known():
    deviation = np.geomspace(0.01, 1, 64).reshape(8, 8)
    deviation[0, 0] = np.inf
    figure = draw_deviation(deviation, (0.4, 0.5), "Phase", "rad")
    shown = figure.axes[0].images[0]
    assert np.ma.count_masked(shown.get_array()) == 1
    np.testing.assert_allclose(shown.get_array().compressed(), deviation.ravel()[1:])
    assert figure.axes[1].get_ylabel() == "standard deviation (rad)"
    figure.canvas.draw()
    with pytest.raises(ValueError, match="no pixel has a finite deviation; give a prior"):
        draw_deviation(np.full((8, 8), np.inf), (0.4, 0.5), "Phase", "rad")


def test_spread_is_drawn_over_the_bound():
    bound = np.append(np.linspace(1, 2, 20), np.inf)
    figure = draw_spread(bound, np.append(1.1 * bound[:-1], 5.0), "mrad")
    ax = figure.axes[0]
    assert "1.100" in ax.get_title()
    assert len(ax.lines[-1].get_xdata()) == 20
    figure.canvas.draw()
