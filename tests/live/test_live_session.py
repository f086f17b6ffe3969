"""Live pictures are those of the same processors over the file, whatever the transmission does."""

import re
from pathlib import Path

import numpy as np
import pytest
import sines
from cameras_live import camera, receiver

import jaxptycho as jp
from jaxptycho import direct
from jaxptycho.io.datasets import read
from jaxptycho.io.readers.stream import read_records
from jaxptycho.live.accumulator import Accumulator, to_corner
from jaxptycho.live.camera.replay import Faults, replay, sent_order, series_of
from jaxptycho.live.focus import kept_blocks, measure_live_camera
from jaxptycho.live.pictures import Canvas, Results, further_results, phase_pictures, results_of
from jaxptycho.live.scan import scan_of
from jaxptycho.live.session import Session
from jaxptycho.live.tally import Tally
from jaxptycho.runs.references import resolve
from jaxptycho.start.direct_object import placement_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")
PLACES = sines.positions()
N = len(PLACES)
FAULTY = Faults(drop=0.05, double=9, shuffle=16)


@pytest.fixture(scope="module")
def data():
    lens = sines.optics(defocus=150.0)
    rate = 5e3 * sines.patterns(lens, (1, 2), PLACES) / 100
    counts = np.random.default_rng(0).poisson(rate).astype(np.uint16)
    about = {"semiangle_mrad": 20.0, "defocus_angstrom": 150.0}
    stored = np.fft.fftshift(counts, axes=(1, 2))
    return jp.Dataset(stored, PLACES, sines.GRID, about=about, bad_data="keep")


def same(live, offline):
    """Kept counts are equal bit by bit, sums to rounding."""
    np.testing.assert_array_equal(live.stack.counts, offline.stack.counts)
    np.testing.assert_array_equal(live.signals.signals, offline.signals.signals)
    np.testing.assert_array_equal(live.stack.seen, offline.stack.seen)
    seen = live.stack.seen
    for one, other in (
        (live.moments.mean, offline.moments.mean),
        (live.moments.variance, offline.moments.variance),
        (live.centres.centres[seen], offline.centres.centres[seen]),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def accumulated(data, order, size, further=()):
    """Accumulator that was given frames in this order."""
    series = series_of(data, "scan")
    running = Accumulator(series, {}, further)
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        records = np.zeros(len(numbers), series.record)
        records["number"] = numbers
        records["pixels"] = np.fft.fftshift(data.patterns(0, numbers), axes=(1, 2))
        running.add(records)
    running.begin()
    return running


def offline(data, running, numbers):
    """Results of the same processors over the patterns `numbers` of the file."""
    patterns = data.patterns(0, numbers)
    positions = running.scan.positions[numbers]
    block = direct.Block(numbers, positions, patterns, np.ones(len(numbers), np.float32))
    return Results(*direct.over([block], *running.processors))


@pytest.mark.parametrize("seed", [0, 1])
def test_live_equals_offline(data, seed):
    order = sent_order(N, FAULTY, np.random.default_rng(seed))
    running = accumulated(data, order, 11)
    live = results_of(running.processors, running.states)
    same(live, offline(data, running, np.unique(order)))
    tally = running.tally
    assert tally.arrived == N - round(0.05 * N)
    assert tally.doubled == 9
    assert tally.frames - tally.arrived == round(0.05 * N)


def test_pictures_and_files_of_a_faulty_series(data, tmp_path):
    snapshots = []

    def act(port):
        for name in ("one", "two"):
            replay(data, port, series_of(data, name), 0.0, FAULTY)

    with camera("plain", act) as address, receiver(address, tmp_path) as link:
        session = Session(link, tmp_path, snapshots.append)
        session.run(lambda: None)
    assert [s.series for s in session.done] == ["one", "two"]
    last = session.done[-1]
    assert last.status["lost"] == round(0.05 * N)
    assert last.status["doubled"] == 9
    assert set(last.pictures) == {"bright_field", "mean_pattern", "phase", "centre_of_mass"}
    for picture in last.pictures.values():
        assert np.isfinite(picture.image).any()
    message = last.message()
    assert message["pictures"]["phase"]["unit"] == "rad"
    assert {p.name for p in (tmp_path / "series-001").iterdir()} == {
        f"{name}.png" for name in last.pictures
    }
    written = read(tmp_path / "series-001.h5", bad_data="keep")
    numbers = np.unique(sent_order(N, FAULTY, np.random.default_rng(0)))
    np.testing.assert_array_equal(
        written.patterns(0, np.arange(len(numbers))), data.patterns(0, numbers)
    )
    np.testing.assert_allclose(written.positions[0] + written.frame, PLACES[numbers])


def test_refocus_equals_a_restart(data):
    running = accumulated(data, np.arange(N), 50)
    results = results_of(running.processors, running.states)
    canvas = Canvas.of(running.scan, running.processors[-1])
    focused, opposite = (
        phase_pictures(canvas, results, running.scan.lens(defocus=d))["phase"].image
        for d in (150.0, -150.0)
    )
    placement = placement_of(running.scan.positions, running.scan.lens())
    expected = direct.matched_filter(results.stack, placement, running.scan.lens()).corrected()
    np.testing.assert_allclose(focused, expected.image, atol=1e-6 * np.abs(focused).max())
    assert np.corrcoef(focused.ravel(), opposite.ravel())[0, 1] < 0.9


def test_a_processor_of_the_user_runs_beside_ours(data, tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
    module = tmp_path / "brightest.py"
    module.write_text(re.search(r"```python\n(.*?)```", text, re.S)[1])
    make = resolve(f"{module}:make")
    running = accumulated(data, np.arange(N - 7), 50, (make,))
    results = results_of(running.processors, running.states)
    canvas = Canvas.of(running.scan, running.bright)
    found = running.processors, running.states, results.stack.seen
    numbers, images = further_results(canvas, *found)
    largest = data.patterns(0, np.arange(N - 7)).max((1, 2))
    assert numbers == {"alarm": (largest > 1000).sum()}
    shown = images["largest_counts"].image.ravel()
    np.testing.assert_allclose(shown[: N - 7], largest, rtol=1e-5)
    assert np.isnan(shown[N - 7 :]).all()


def test_a_scan_that_is_not_known_is_asked_for(data):
    series = series_of(data, "scan")
    first = np.fft.fftshift(data.patterns(0, np.arange(64)), axes=(1, 2))
    series.about.pop("voltage_kv")
    with pytest.raises(ValueError, match="does not give voltage_kv"):
        scan_of(series, first)


def test_a_recording_is_kept_where_the_scan_is_not_known(data, tmp_path):
    series = series_of(data, "scan")
    series.about.pop("voltage_kv")
    with (
        camera("plain", lambda port: replay(data, port, series)) as address,
        receiver(address, tmp_path) as link,
        pytest.raises(ValueError, match="does not give voltage_kv"),
    ):
        Session(link, tmp_path, print).run(lambda: None)
    recorded = read_records(tmp_path / "series-000.stream")[1]
    assert len(recorded) >= 64
    shots = recorded["number"]
    expected = np.fft.fftshift(data.patterns(0, shots), axes=(1, 2))
    np.testing.assert_array_equal(recorded["pixels"], expected)


def test_tally_of_frames():
    tally = Tally(10)
    np.testing.assert_array_equal(tally.add(np.array([0, 2, 2, 1, 12])), [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(tally.add(np.array([1, 5, -1])), [0, 1, 0])
    assert (tally.arrived, tally.doubled, tally.late, tally.foreign) == (4, 2, 1, 2)
    assert (tally.missing, tally.newest) == (2, 5)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_patterns_are_shifted_to_the_corner(shape):
    pixels = np.random.default_rng(0).integers(0, 9, (3, *shape))
    out = np.empty_like(pixels)
    to_corner(pixels, out)
    np.testing.assert_array_equal(out, np.fft.ifftshift(pixels, axes=(1, 2)))


@pytest.mark.parametrize("shuffle", [0, 8])
def test_frames_are_displaced_by_no_more_than_asked(shuffle):
    order = sent_order(300, Faults(shuffle=shuffle), np.random.default_rng(0))
    assert np.abs(order - np.arange(300)).max() <= shuffle
    assert (np.diff(order) < 0).any() == (shuffle > 0)


def test_optics_are_measured_from_what_is_kept(data):
    running = accumulated(data, np.arange(N), 50)
    results = results_of(running.processors, running.states)
    blocks = list(kept_blocks(running.scan, running.bright, results.stack))
    (again,) = direct.over(blocks, running.bright)
    np.testing.assert_array_equal(again.counts, results.stack.counts)
    np.testing.assert_array_equal(again.seen, results.stack.seen)


def test_the_camera_is_measured_from_what_is_recorded(data, tmp_path):
    series = series_of(data, "scan")
    records = np.zeros(N, series.record)
    records["number"] = np.arange(N)
    records["pixels"] = np.fft.fftshift(data.patterns(0, np.arange(N)), axes=(1, 2))
    recording = tmp_path / "scan.stream"
    recording.write_bytes(series.header() + records[: N - 20].tobytes())
    rows = measure_live_camera(recording, {})
    np.testing.assert_allclose(rows["semiangle_mrad"].value, 20.0, rtol=0.05)
    recording.unlink()
    assert measure_live_camera(recording, {}) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["rotavirus_300kV_64x64.h5", "wse2_mos2_bilayer_80kV_1e5.h5"], ids=["cryo", "bilayer"]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_live_equals_offline_on_measured_data(data_dir, name, seed):
    data = read(data_dir(name), bad_data="keep")
    order = sent_order(data.n_shots[0], Faults(0.05, 200, 64), np.random.default_rng(seed))
    running = accumulated(data, order, 60)
    live = results_of(running.processors, running.states)
    same(live, offline(data, running, np.unique(order)))
    canvas = Canvas.of(running.scan, running.bright)
    one, other = (
        phase_pictures(canvas, results, running.scan.lens())["phase"].image
        for results in (live, offline(data, running, np.unique(order)))
    )
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    assert (running.tally.arrived, running.tally.doubled) == (len(np.unique(order)), 200)
