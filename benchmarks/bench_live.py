"""Frames per second of live processing, against a loop that only receives and sums.

A process sends frames of 128 × 128 pixels, 16 bits, through a socket as fast as they are taken:
`python benchmarks/bench_live.py [FRAMES]`. The processor time is that of the process
that computes; the receiver of live processing has another one, whose share is in the wall time.
"""

import multiprocessing
import socket
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from jaxptycho.io.stream import Series
from jaxptycho.live.accumulator import Accumulator
from jaxptycho.live.camera.plain import Plain
from jaxptycho.live.intake import Begin, End
from jaxptycho.live.receiver import Receiver
from jaxptycho.live.sources.address import Address

SIDE = 128
LINE = 128
ABOUT = {"voltage_kv": 300.0, "semiangle_mrad": 10.0, "dk_inverse_angstrom": 0.0254}
DIFFERENT = 512  # patterns


def send(frames, pipe):
    """Send one series to whoever connects."""
    k = np.hypot(*np.meshgrid(*[np.arange(SIDE) - SIDE // 2] * 2))
    patterns = np.random.default_rng(0).poisson(10 * (k < 20) + 0.1, (DIFFERENT, SIDE, SIDE))
    patterns = patterns.astype(np.uint16)
    about = ABOUT | {"scan_shape": [frames // LINE, LINE], "step_angstrom": 0.5}
    series = Series("rate", frames, (SIDE, SIDE), patterns.dtype, about)
    camera = Plain("127.0.0.1", 0)
    pipe.send(camera.port)
    camera.wait()
    camera.begin(series)
    for start in range(0, frames, DIFFERENT // 4):
        numbers = np.arange(start, min(start + DIFFERENT // 4, frames))
        camera.send(series, numbers, patterns[numbers % DIFFERENT])
    camera.end(series)
    camera.close()


def sender(frames):
    """Port of a process that sends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=send, args=(frames, theirs), daemon=True)
    process.start()
    return process, ours.recv()


def plain(frames):
    """Receive into one buffer, and add up all patterns."""
    process, port = sender(frames)
    link = socket.create_connection(("127.0.0.1", port))
    with link, link.makefile("rb") as stream:
        line = stream.readline()
        record = np.dtype([("number", "<i8"), ("pixels", "<u2", (SIDE, SIDE))])
        block = np.empty(64, record)
        total = np.zeros((SIDE, SIDE), np.uint32)
        assert line
        begun = time.perf_counter(), time.process_time()
        for _ in range(frames // 64):
            stream.readinto(memoryview(block.view(np.uint8)))
            total += block["pixels"].sum(0, dtype=np.uint32)
        spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
    process.join()
    return spent


def live(frames):
    """All linear processors, with the recording, from the first block that is processed."""
    process, port = sender(frames)
    with (
        tempfile.TemporaryDirectory() as folder,
        Receiver(Address("plain", "127.0.0.1", port), Path(folder), "block") as receiver,
    ):
        for event in receiver.events():
            if isinstance(event, Begin):
                running = Accumulator(event.series, {})
            elif isinstance(event, End):
                break
            elif event is not None:
                running.add(event)
                if running.may_begin:
                    running.begin()
                    begun = time.perf_counter(), time.process_time()
        jax.block_until_ready(running.states)
        spent = time.perf_counter() - begun[0], time.process_time() - begun[1]
        assert running.tally.arrived == frames
    process.join()
    return spent


if __name__ == "__main__":
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 12800
    live(1280)  # compiles
    for _ in range(3):
        for name, run in (("receive and sum", plain), ("live", live)):
            wall, processor = run(frames)
            print(f"{name}: {frames / wall:.0f} frames/s, {1e6 * processor / frames:.0f} µs CPU")
