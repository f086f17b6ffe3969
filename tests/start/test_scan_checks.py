"""What is no single scan of an area is refused before anything is measured."""

import numpy as np
import pytest
from scans import GRID

import jaxptycho as jp
from jaxptycho.start.scan_checks import require_scanned_area


def raster(rows, columns):
    """Positions of a raster [Å]."""
    places = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return 2.0 * np.stack(places, -1).reshape(-1, 2)


def data(positions):
    """Patterns of one count in every pixel."""
    counts = np.ones((len(positions), *GRID.shape), np.uint8)
    return jp.Dataset(counts, positions, GRID, bad_data="keep")


def test_a_scan_of_an_area_passes():
    require_scanned_area(data(raster(4, 5)))


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        (raster(1, 3), "3 patterns do not determine"),
        (raster(1, 20), "20 positions of the scan are on a line"),
        (np.tile(raster(4, 4), (2, 1)), "comes 2 times; are there 2 scans"),
    ],
)
def test_what_is_no_scan_is_refused_in_one_sentence(positions, words):
    with pytest.raises(ValueError, match=words):
        require_scanned_area(data(positions))
