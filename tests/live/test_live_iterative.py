"""Iterative reconstruction of a recording that grows."""

import numpy as np
import pytest
import sines

from jaxptycho.io.stream import Series
from jaxptycho.live.iterative import Arrivals, Iterative, live_model
from jaxptycho.live.scan import LiveScan

pytestmark = pytest.mark.usefixtures("quick_to_compile")
PLACES = sines.positions() - sines.positions().mean(0)
N = len(PLACES)
SCAN = LiveScan(sines.GRID, PLACES, np.dtype(np.uint16), sines.SEMIANGLE, (0.0, 0.0), 150.0)


@pytest.fixture(scope="module")
def records():
    """Records of a series of Poisson counts."""
    exact = sines.patterns(sines.optics(defocus=150.0), (1, 2), sines.positions())
    counts = np.random.default_rng(0).poisson(50 * np.fft.fftshift(exact, axes=(1, 2)))
    series = Series("scan", N, sines.GRID.shape, SCAN.dtype)
    made = np.zeros(N, series.record)
    made["number"] = np.arange(N)
    made["pixels"] = counts
    return series, made


def test_arrivals_are_found_by_their_numbers(records, tmp_path):
    series, made = records
    path = tmp_path / "scan.stream"
    first = np.r_[made[7:12], made[3:9]]
    path.write_bytes(series.header() + first.tobytes() + made[:1].tobytes()[:99])
    arrivals = Arrivals(path, N)
    np.testing.assert_array_equal(np.flatnonzero(arrivals.seen), np.arange(3, 12))
    with path.open("r+b") as file:
        file.seek(len(series.header()) + first.nbytes)
        file.write(made[:1].tobytes())
    arrivals.refresh()
    assert arrivals.seen[0]
    shots = np.array([0, 11, 5])
    expected = np.fft.ifftshift(made["pixels"][shots], axes=(1, 2))
    np.testing.assert_array_equal(arrivals.patterns(shots), expected)
    path.unlink()
    arrivals.refresh()
    np.testing.assert_array_equal(arrivals.patterns(shots), expected)


def test_steps_follow_the_scan_and_visit_all_lines_alike(records, tmp_path):
    series, made = records
    path = tmp_path / "scan.stream"
    path.write_bytes(series.header())
    mean = made["pixels"].mean(0)
    running = Iterative(live_model(SCAN, mean), Arrivals(path, N), seed=1)
    assert running.tick(9.0, 5) == 0
    for start in range(0, N, N // 4):
        with path.open("ab") as file:
            file.write(made[start : start + N // 4].tobytes())
        assert running.tick(60.0, 20) == 20
        assert not running.visits[start + N // 4 :].any()
    assert running.tick(60.0, 100) == 100
    assert running.steps == 180
    usable = ~running.held
    early = running.visits[: N // 4][usable[: N // 4]].mean()
    late = running.visits[-N // 4 :][usable[-N // 4 :]].mean()
    assert late > 0.5 * early
    assert not running.visits[running.held].any()
    assert np.isfinite(running.held_out_loss())
    assert np.isfinite(running.losses).all()
