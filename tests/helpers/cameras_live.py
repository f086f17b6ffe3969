"""Simulated cameras in a thread, and what a receiver in another one takes from them."""

import threading
from contextlib import contextmanager

import numpy as np

from jaxptycho.io.stream import Series
from jaxptycho.live.camera import PROTOCOLS
from jaxptycho.live.intake import Begin, End
from jaxptycho.live.receiver import Receiver
from jaxptycho.live.sources.address import Address

SHAPE = (6, 8)


def frames(count, seed=0, dtype=np.uint16, shape=SHAPE):
    """Random patterns in the layout of a camera."""
    return np.random.default_rng(seed).integers(0, 60, (count, *shape)).astype(dtype)


def send_all(transport, patterns, name="scan", numbers=None, **about):
    """Send one series, by default every frame once, in order."""
    numbers = np.arange(len(patterns)) if numbers is None else numbers
    series = Series(name, len(patterns), patterns.shape[1:], patterns.dtype, about)
    transport.begin(series)
    for part in np.array_split(numbers, max(1, len(numbers) // 7)):
        transport.send(series, part, patterns[part])
    transport.end(series)


@contextmanager
def camera(protocol, act):
    """Address of a camera on which `act(transport)` runs once somebody listens."""
    transport = PROTOCOLS[protocol]("127.0.0.1", 0)

    def run():
        transport.wait()
        act(transport)
        transport.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield Address(protocol, "127.0.0.1", transport.port)
    thread.join(5)
    assert not thread.is_alive()


def receiver(address, folder, **options):
    """Receiver in a thread, which gives up after a few seconds."""
    settings = {"patience": 5.0, "ring_bytes": 2**20, "worker": threading.Thread} | options
    return Receiver(address, folder, **settings)


def received(link, series):
    """(announcement, numbers, patterns, note) of the next `series` of a receiver."""
    found = []
    parts = []
    for event in link.events():
        if isinstance(event, Begin):
            begun = event
            parts = []
        elif isinstance(event, End):
            records = np.concatenate([*parts, np.empty(0, begun.series.record)])
            found.append((begun, records["number"], records["pixels"], event.note))
            if len(found) == series:
                break
        elif event is not None:
            parts.append(event)
    return found
