"""`jaxptycho live` and `jaxptycho camera`."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..io.datasets import read
from ..io.readers.reading import QUANTITIES
from ..live.camera import PROTOCOLS
from ..live.camera.replay import Faults, replay, series_of
from ..live.receiver import Receiver
from ..live.ring import POLICIES
from ..live.session import Session
from ..live.snapshot import Snapshot
from ..live.sources.address import parse_address
from ..runs.folder import refuse_existing
from ..runs.progress import SignalStopper
from .given import given_values

PRINTED_S = 1.0


def run_camera(
    file: Path,
    protocol: str,
    host: str,
    port: int,
    rate: float,
    faults: Faults,
    series: int,
    settings: Sequence[str],
) -> None:
    """Replay the patterns of `file` as a camera that others listen to."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol is called {protocol!r}; known are {', '.join(PROTOCOLS)}")
    if not 0 <= faults.drop < 1 or faults.double < 0 or faults.shuffle < 0 or series < 1:
        raise ValueError(
            f"{faults} in {series} series; drop from 0 to 1, the others not negative, and at least "
            "one series are required"
        )
    data = read(file, bad_data="keep", **given_values(settings))
    transport = PROTOCOLS[protocol](host, port)
    try:
        print(f"{file.name} at {protocol}://{host}:{transport.port}", flush=True)
        transport.wait()
        for number in range(series):
            announced = series_of(data, f"{file.stem}-{number}")
            sent = replay(data, transport, announced, rate, faults, seed=number)
            print(
                f"sent {sent.frames} frames of {announced.frames}, {sent.doubled} of them twice, "
                f"in {sent.seconds:.2f} s",
                flush=True,
            )
    finally:
        transport.close()


def run_live(
    source: str,
    folder: Path | None,
    policy: str,
    patience: float,
    ring_mib: int,
    series: int | None,
    settings: Sequence[str],
) -> None:
    """Receive from `source` without a page: pictures and files in `folder`, counts printed."""
    if policy not in POLICIES:
        raise ValueError(f"no policy is called {policy!r}; known are {', '.join(POLICIES)}")
    address = parse_address(source)
    folder = folder or Path(f"live-{datetime.now():%Y%m%d-%H%M%S}")
    refuse_existing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = given_values(settings)
    given = {name: known.pop(name) for name in (*QUANTITIES, "scan_order") if name in known}
    ring = ring_mib * 2**20
    with (
        SignalStopper() as stopper,
        Receiver(address, folder, policy, given, patience, ring) as receiver,
    ):
        session = Session(receiver, folder, Printer(), known)
        session.run(stopper.why, series)
    print(f"{len(session.done)} series in {folder}")


class Printer:
    """Listener that prints a line of a series every second, and one at its end."""

    def __init__(self):
        self.last = 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        """Print a snapshot if it is time."""
        now = time.monotonic()
        if snapshot.status["over"]:
            note = snapshot.status["note"]
            print(snapshot.line() + (f" ({note})" if note else ", complete"), flush=True)
        elif now - self.last > PRINTED_S:
            self.last = now
            print(snapshot.line(), file=sys.stderr, flush=True)
