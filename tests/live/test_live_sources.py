"""Frames of every protocol arrive byte for byte, in series that never mix."""

import socket
import threading

import numpy as np
import pytest
from cameras_live import SHAPE, camera, frames, received, receiver, send_all

from jaxptycho.io.readers.stream import read_records
from jaxptycho.io.stream import Series
from jaxptycho.live.camera import PROTOCOLS as CAMERAS
from jaxptycho.live.sources.address import Address, parse_address

NEEDS = {"dectris": ("zmq", "cbor2"), "dectris-v1": ("zmq",)}
PROTOCOLS = ("plain", "merlin", "dectris", "dectris-v1")


@pytest.fixture(params=PROTOCOLS)
def protocol(request):
    for module in NEEDS.get(request.param, ()):
        pytest.importorskip(module)
    return request.param


def test_frames_arrive_byte_for_byte_and_are_recorded(protocol, tmp_path):
    sent = frames(50)
    with (
        camera(protocol, lambda port: send_all(port, sent)) as address,
        receiver(address, tmp_path) as link,
    ):
        [(begun, numbers, pixels, note)] = received(link, 1)
    assert note == ""
    np.testing.assert_array_equal(numbers, np.arange(50))
    np.testing.assert_array_equal(pixels, sent)
    assert pixels.dtype == sent.dtype
    series, records = read_records(begun.recording)
    assert series.record == begun.series.record
    np.testing.assert_array_equal(records["pixels"], sent)


def test_numbers_are_those_of_the_camera(protocol, tmp_path):
    sent = frames(30)
    order = np.r_[np.arange(3, 25), [4, 4, 1], np.arange(26, 30)]
    with (
        camera(protocol, lambda port: send_all(port, sent, numbers=order)) as address,
        receiver(address, tmp_path) as link,
    ):
        [(_, numbers, pixels, _)] = received(link, 1)
    np.testing.assert_array_equal(numbers, order)
    np.testing.assert_array_equal(pixels, sent[order])


def test_series_follow_one_another_without_a_restart(protocol, tmp_path):
    first = frames(20)
    second = frames(15, seed=1, dtype=np.uint8, shape=(4, 4))

    def act(port):
        send_all(port, first, "one")
        send_all(port, second, "two")

    with camera(protocol, act) as address, receiver(address, tmp_path) as link:
        one, two = received(link, 2)
    np.testing.assert_array_equal(one[2], first)
    np.testing.assert_array_equal(two[2], second)
    assert one[0].recording != two[0].recording


def test_a_recording_that_grows_is_a_source(tmp_path):
    sent = frames(40)
    series = Series("grown", 40, SHAPE, sent.dtype)
    records = np.zeros(40, series.record)
    records["number"] = np.arange(40)
    records["pixels"] = sent
    path = tmp_path / "grown.stream"
    content = series.header() + records.tobytes()
    path.write_bytes(content[:3000])

    def append():
        with path.open("ab") as file:
            file.write(content[3000:])

    (tmp_path / "out").mkdir()
    with receiver(parse_address(str(path)), tmp_path / "out") as link:
        threading.Timer(0.2, append).start()
        [(_, numbers, pixels, note)] = received(link, 1)
    assert note == ""
    np.testing.assert_array_equal(numbers, np.arange(40))
    np.testing.assert_array_equal(pixels, sent)


@pytest.mark.parametrize("policy", ["spill", "block"])
def test_nothing_is_lost_in_a_ring_that_is_too_small(policy, tmp_path):
    sent = frames(400, dtype=np.uint8)
    size = 10 * (sent[0].nbytes + 8)
    with (
        camera("plain", lambda port: send_all(port, sent)) as address,
        receiver(address, tmp_path, policy=policy, ring_bytes=size) as link,
    ):
        [(_, numbers, pixels, _)] = received(link, 1)
    np.testing.assert_array_equal(numbers, np.arange(400))
    np.testing.assert_array_equal(pixels, sent)


def test_the_newest_frames_are_seen_and_all_are_recorded(tmp_path):
    shape = (256, 256)
    sent = frames(100, shape=shape)
    size = 34 * (sent[0].nbytes + 8)
    with (
        camera("plain", lambda port: send_all(port, sent)) as address,
        receiver(address, tmp_path, policy="newest", ring_bytes=size) as link,
    ):
        [(begun, numbers, pixels, _)] = received(Slow(link), 1)
        assert link.skipped == 100 - len(numbers)
    np.testing.assert_array_equal(pixels, sent[numbers])
    assert numbers[-1] == 99
    np.testing.assert_array_equal(read_records(begun.recording)[1]["pixels"], sent)


class Slow:
    """Receiver whose frames are taken late."""

    def __init__(self, link):
        self.link = link

    def events(self):
        for event in self.link.events():
            if event is not None and self.link.begun is not None:
                threading.Event().wait(0.05)
            yield event


def refused(act, tmp_path, protocol="plain", **options):
    """Fault of a receiver of what `act(socket)` sends, and the series that it had by then."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _ = server.accept()
        with client:
            act(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = Address(protocol, "127.0.0.1", server.getsockname()[1])
    found = []
    with receiver(address, tmp_path, **options) as link, pytest.raises(ValueError) as error:  # noqa: PT011
        found.extend(event for event in link.events() if event is not None)
    server.close()
    thread.join(5)
    return str(error.value), found


def begun_series(sent, **changes):
    """Bytes of a series without its end."""
    series = Series("cut", len(sent), sent.shape[1:], sent.dtype)
    records = np.zeros(len(sent), series.record)
    records["number"] = np.arange(len(sent))
    records["pixels"] = sent
    for index, number in changes.get("numbers", {}).items():
        records["number"][index] = number
    return series.header() + records.tobytes()


def test_a_cut_message_is_told_and_what_had_come_is_kept(tmp_path):
    sent = frames(20)
    said, found = refused(lambda port: port.sendall(begun_series(sent)[:-30]), tmp_path)
    assert "74 bytes into a frame" in said
    records = np.concatenate([f for f in found if isinstance(f, np.ndarray)])
    np.testing.assert_array_equal(records["pixels"], sent[:19])
    assert len(read_records(tmp_path / "series-000.stream")[1]) == 19


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GET / HTTP/1.1\n\n", "no header"),
        (b'{"format": "jaxptycho-stream", "version": 9}\n', "no header"),
        (Series("a", 3, (0, 4), np.dtype("u2")).header(), r"frames of \(0, 4\)"),
        (begun_series(frames(9), numbers={4: 77}), "frame 77 in a series of 9"),
    ],
    ids=["another protocol", "version", "shape", "numbers"],
)
def test_nonsense_is_refused_in_one_sentence(content, words, tmp_path):
    said, _ = refused(lambda port: port.sendall(content), tmp_path)
    assert words.replace("\\", "") in said


def test_silence_and_absence_end_in_time(tmp_path):
    patient = threading.Event()
    said, _ = refused(lambda port: patient.wait(1.0), tmp_path, patience=0.3)
    assert "sent nothing for 0.3 s" in said
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(ValueError, match="nothing answered"),
        receiver(Address("plain", "127.0.0.1", port), tmp_path, patience=0.3) as link,
    ):
        list(link.events())


def test_garbage_before_the_trigger_is_passed_over(tmp_path):
    sent = frames(12)

    def act(port):
        port.listener.send(b"\0\0noise MPX,not a number, more of it")
        send_all(port, sent)

    with camera("merlin", act) as address, receiver(address, tmp_path) as link:
        [(_, _, pixels, _)] = received(link, 1)
        assert link.refused == 1
    np.testing.assert_array_equal(pixels, sent)


def test_settings_that_change_within_a_series_are_refused(protocol, tmp_path):
    if protocol == "plain":
        pytest.skip("its frames have no headers")
    sent = frames(10)
    other = frames(10, shape=(8, 6), dtype=np.uint8)

    def act(port):
        series = Series("one", 20, SHAPE, sent.dtype)
        port.begin(series)
        port.send(series, np.arange(10), sent)
        changed = Series("one", 20, other.shape[1:], other.dtype)
        port.send(changed, np.arange(10, 20), other)

    with camera(protocol, act) as address, receiver(address, tmp_path) as link:
        received(link, 1)
        with pytest.raises(ValueError, match="start a new"):
            list(link.events())
    assert len(read_records(tmp_path / "series-000.stream")[1]) == 10


def test_frames_of_a_foreign_series_are_left_and_counted(tmp_path):
    pytest.importorskip("zmq")
    pytest.importorskip("cbor2")
    sent = frames(10)
    mine = Series("mine", 10, SHAPE, sent.dtype)
    foreign = Series("foreign", 10, SHAPE, sent.dtype)

    def act(port):
        port.begin(mine)
        port.send(mine, np.arange(5), sent[:5])
        port.send(foreign, np.arange(5), sent[5:])
        port.pusher.send(b"\x00garbage")
        port.send(mine, np.arange(5, 10), sent[5:])
        port.end(mine)

    with camera("dectris", act) as address, receiver(address, tmp_path) as link:
        [(_, numbers, pixels, _)] = received(link, 1)
        assert link.refused == 6
    np.testing.assert_array_equal(numbers, np.arange(10))
    np.testing.assert_array_equal(pixels, sent)


def test_a_port_that_is_taken_is_told(protocol):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match="choose another with --port"):
            CAMERAS[protocol]("127.0.0.1", port)


def test_addresses():
    assert parse_address("merlin://here") == Address("merlin", "here", 6342)
    assert parse_address("scan.stream").scheme == "file"
    with pytest.raises(ValueError, match="scheme://host:port"):
        parse_address("plain://:12")
