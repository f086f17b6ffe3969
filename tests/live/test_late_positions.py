"""Positions that come beside the frames, and later, are joined to them by number."""

import socket
import time
from dataclasses import replace

import numpy as np
import pytest
import sines
from cameras_live import camera, receiver

import jaxptycho as jp
from jaxptycho.io.datasets import read
from jaxptycho.live.camera.late_positions import PositionPort
from jaxptycho.live.camera.replay import Faults, replay, series_of
from jaxptycho.live.positions import LatePositions
from jaxptycho.live.session import Session

pytestmark = pytest.mark.usefixtures("quick_to_compile")
PLACES = sines.positions()
N = len(PLACES)
MEASURED = PLACES + np.random.default_rng(3).uniform(-0.3, 0.3, PLACES.shape)


@pytest.fixture(scope="module")
def data():
    """Patterns at the measured places."""
    rate = 50 * sines.patterns(sines.optics(defocus=150.0), (1, 2), MEASURED)
    counts = np.random.default_rng(0).poisson(rate).astype(np.uint16)
    about = {"semiangle_mrad": 20.0, "defocus_angstrom": 150.0}
    stored = np.fft.fftshift(counts, axes=(1, 2))
    return jp.Dataset(stored, MEASURED, sines.GRID, about=about, bad_data="keep")


def until(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_lines_are_joined_by_series_and_number(tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("2 0.5 -1.5\n0, 1, 2\n")
    late = LatePositions(str(path))
    late.begin("one", tmp_path / "one.txt")
    until(lambda: late.changes == 1)
    with path.open("a") as file:
        file.write("# a remark\n7 3 3\n# series two\n1 9.25 8\n")
    until(lambda: late.changes == 2)
    np.testing.assert_array_equal(late.of("one", 3), [[1, 2], [np.nan, np.nan], [0.5, -1.5]])
    np.testing.assert_array_equal(late.of("two", 2), [[np.nan, np.nan], [9.25, 8]])
    late.begin("two", tmp_path / "two.txt")
    late.close()
    assert sorted((tmp_path / "one.txt").read_text().splitlines()) == [
        "0 1.0 2.0",
        "2 0.5 -1.5",
        "7 3.0 3.0",
    ]
    assert (tmp_path / "two.txt").read_text() == "1 9.25 8.0\n"


@pytest.mark.parametrize("line", ["1 2\n", "1.5 2 3\n", "1 nan 2\n", "a b c\n"])
def test_what_is_no_position_is_told(line, tmp_path):
    path = tmp_path / "places.txt"
    path.write_text(line)
    late = LatePositions(str(path))
    until(lambda: late.fault)
    assert "a line of number, y, x" in late.fault
    late.close()


def test_ports_that_do_not_answer_are_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ValueError, match="no positions at"):
        LatePositions(f"tcp://127.0.0.1:{port}")
    with pytest.raises(ValueError, match="a file or tcp://HOST:PORT"):
        LatePositions("merlin://here:3")


def session(data, commanded, tmp_path):
    """Last snapshot of a session whose camera announces the `commanded` scan."""
    controller = PositionPort(MEASURED, 100, "127.0.0.1", 0)
    late = LatePositions(f"tcp://127.0.0.1:{controller.port}")
    series = replace(series_of(data, "one"), positions=commanded)

    def act(port):
        until(controller.listener.connected)
        replay(data, port, series, 0.0, Faults(shuffle=8), controller=controller)

    with camera("plain", act) as address, receiver(address, tmp_path) as link:
        running = Session(link, tmp_path, print, late=late)
        try:
            running.run(lambda: None)
        finally:
            running.close()
            late.close()
            controller.close()
    return running.done[-1]


def test_pictures_and_files_are_those_of_the_measured_positions(data, tmp_path):
    last = session(data, PLACES, tmp_path)
    assert last.status["without_position"] == 0
    written = read(tmp_path / "series-000.h5", bad_data="keep")
    np.testing.assert_allclose(written.positions[0] + written.frame, MEASURED)
    np.testing.assert_array_equal(written.patterns(0, np.arange(N)), data.patterns(0, np.arange(N)))
    assert not list(tmp_path.glob("*.positions.txt"))
    assert np.isfinite(last.pictures["phase"].image).all()


def test_frames_without_a_position_are_kept_and_counted(data, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxptycho.live.session.LATE_S", 0.2)
    monkeypatch.setattr(PositionPort, "end", lambda self: None)
    last = session(data, PLACES, tmp_path)
    assert last.status["without_position"] == 100
    assert "100 of its frames have no position" in last.status["note"]
    half = read(tmp_path / "series-000.stream", bad_data="keep")
    assert len(half.positions[0]) == N - 100
