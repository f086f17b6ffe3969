"""A receiver that is killed is started again within its series; the gap is known."""

import os
import signal
import threading

import numpy as np
import pytest
from cameras_live import SHAPE, camera, frames

from jaxptycho.io.readers.stream import read_records
from jaxptycho.io.stream import Series
from jaxptycho.live.intake import Begin, End
from jaxptycho.live.receiver import Receiver

COUNT = 4000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_receiver_goes_on_within_the_series(tmp_path, seed):
    sent = frames(COUNT, seed)
    killed = threading.Event()

    def act(port):
        series = Series("scan", COUNT, SHAPE, sent.dtype)
        port.begin(series)
        number = 0
        while number < COUNT:
            if number == COUNT // 2:
                killed.wait(60)
            if number >= COUNT // 2 and not port.listener.connected():
                threading.Event().wait(0.1)
                port.listener.connected()
            if number == 3 * COUNT // 4:
                while not port.listener.connected():
                    threading.Event().wait(0.1)
            numbers = np.arange(number, number + 10)
            port.send(series, numbers, sent[numbers])
            number += 10
        port.end(series)

    numbers = []
    pixels = []
    with camera("plain", act) as address, Receiver(address, tmp_path, patience=60.0) as link:
        for event in link.events():
            if isinstance(event, Begin):
                recording = event.recording
            elif isinstance(event, End):
                assert event.note == ""
                break
            elif event is not None:
                numbers.extend(event["number"])
                pixels.extend(event["pixels"])
                if len(numbers) > COUNT // 4 and not killed.is_set():
                    os.kill(link.process.pid, signal.SIGKILL)
                    link.process.join()
                    killed.set()
        assert link.restarts == 1
    assert len(set(numbers)) == len(numbers)
    assert numbers[-1] == COUNT - 1
    assert COUNT // 2 < len(numbers) <= COUNT
    np.testing.assert_array_equal(pixels, sent[numbers])
    np.testing.assert_array_equal(read_records(recording)[1]["number"], numbers)
