"""`jaxptycho live`, `jaxptycho watch` and `jaxptycho camera`."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..io.datasets import read
from ..io.instrument import INSTRUMENT, check_known
from ..io.readers.reading import QUANTITIES
from ..io.scan_layout import ScanLayout
from ..live.camera import PROTOCOLS
from ..live.camera.late_positions import PositionPort
from ..live.camera.replay import Faults, replay, series_of
from ..live.page import Feed, Page
from ..live.positions import LatePositions
from ..live.receiver import Receiver
from ..live.ring import POLICIES
from ..live.session import Session
from ..live.snapshot import Snapshot
from ..live.sources import require_source
from ..live.sources.address import parse_address
from ..live.watch import WatchedRun, history_of, run_line, run_status
from ..runs.folder import refuse_existing
from ..runs.progress import SignalStopper
from ..runs.references import absolute, resolve
from .given import given_values

LAYOUT = ("scan_transform", "rotation_deg", "scan_affine")
PRINTED_S = 1.0
WATCH_S = 0.5  # between two looks at a run


def run_camera(
    file: Path,
    protocol: str,
    host: str,
    port: int,
    rate: float,
    faults: Faults,
    series: int,
    late: int | None,
    settings: Sequence[str],
) -> None:
    """Replay the patterns of `file` as a camera that others listen to.

    With `late` positions come from a port of their own, as many frames behind.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol is called {protocol!r}; known are {', '.join(PROTOCOLS)}")
    if not 0 <= faults.drop < 1 or faults.double < 0 or faults.shuffle < 0 or series < 1:
        raise ValueError(
            f"{faults} in {series} series; drop from 0 to 1, the others not negative, and at least "
            "one series are required"
        )
    data = read(file, bad_data="keep", **given_values(settings))
    transport = PROTOCOLS[protocol](host, port)
    controller = None if late is None else PositionPort(data.positions[0], late, host, 0)
    try:
        print(f"{file.name} at {protocol}://{host}:{transport.port}", flush=True)
        if controller is not None:
            print(f"its positions at tcp://{host}:{controller.port}", flush=True)
        transport.wait()
        for number in range(series):
            announced = series_of(data, f"{file.stem}-{number}")
            faulty = rate, faults, number
            sent = replay(data, transport, announced, *faulty, controller=controller)
            print(
                f"sent {sent.frames} frames of {announced.frames}, {sent.doubled} of them twice, "
                f"in {sent.seconds:.2f} s",
                flush=True,
            )
    finally:
        transport.close()
        if controller is not None:
            controller.close()


def run_live(
    source: str,
    folder: Path | None,
    policy: str,
    patience: float,
    ring_mib: int,
    series: int | None,
    place: tuple[str, int] | None,
    processors: Sequence[str],
    iterates: bool,
    positions: str | None,
    settings: Sequence[str],
) -> None:
    """Receive from `source` into `folder`, with counts printed, or a page at `place` (host, port).

    `positions` is the address of measured ones, which come beside the frames.
    With a page the last series can be looked at until the user ends the session.
    """
    if policy not in POLICIES:
        raise ValueError(f"no policy is called {policy!r}; known are {', '.join(POLICIES)}")
    address = parse_address(source)
    folder = folder or Path(f"live-{datetime.now():%Y%m%d-%H%M%S}")
    refuse_existing(folder)
    given, layout = split_given(given_values(settings))
    require_source(address)
    further = [resolve(absolute(name, Path.cwd())) for name in processors]
    late = None if positions is None else LatePositions(positions)
    feed = Feed()
    asked: SimpleQueue[dict[str, Any]] = SimpleQueue()
    page = None if place is None else Page(feed, asked.put, *place)
    folder.mkdir(parents=True, exist_ok=True)
    printer = Printer()

    def show(snapshot: Snapshot) -> None:
        printer(snapshot)
        if page is not None:
            feed.put(snapshot.message())

    with ExitStack() as stack:
        stopper = stack.enter_context(SignalStopper())
        if page is not None:
            stack.enter_context(page)
            print(f"look at {page.url}", flush=True)
        options = policy, given, patience, ring_mib * 2**20
        receiver = stack.enter_context(Receiver(address, folder, *options))
        session = Session(receiver, folder, show, layout, asked, further, iterates, late)
        stack.callback(session.close)
        if late is not None:
            stack.callback(late.close)
        session.run(stopper.why, series)
        if page is not None:
            print("the camera has ended; Ctrl-C ends the session", flush=True)
            session.stay(stopper.why)
    print(f"{len(session.done)} series in {folder}")


def split_given(known: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a user gives beside the camera: quantities of the scan, and the layout of its axes.

    Raises ValueError for what is neither, and for values of another kind.
    """
    layout = {name: known.pop(name) for name in LAYOUT if name in known}
    ScanLayout.taken_from(dict(layout))
    check_known(known, (*INSTRUMENT, *QUANTITIES, "scan_order"))
    shape = np.asarray(known.get("scan_shape", (1, 1)))
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or shape.min() < 1:
        raise ValueError(
            f"scan_shape = {known['scan_shape']!r}; two numbers (y, x) are required, as in --set "
            "scan_shape=[64,64]"
        )
    if (order := known.get("scan_order", "raster")) not in ("raster", "serpentine"):
        raise ValueError(f"scan_order = {order!r}; raster or serpentine is required")
    return known, layout


class Printer:
    """Listener that prints a line of a series every second, and one at its end."""

    def __init__(self):
        self.last = 0.0
        self.ended = ""

    def __call__(self, snapshot: Snapshot) -> None:
        """Print a snapshot if it is time."""
        now = time.monotonic()
        note = snapshot.status["note"]
        if snapshot.status["over"]:
            if note and snapshot.series != self.ended:
                self.ended = snapshot.series
                print(f"{snapshot.line()}; {note}", flush=True)
        elif now - self.last > PRINTED_S:
            self.last = now
            print(snapshot.line(), file=sys.stderr, flush=True)


def run_watch(folder: Path, place: tuple[str, int], once: bool) -> None:
    """Show the run in `folder` on a page at `place`, and a line for every epoch.

    With `once` only the line of its present state is printed.
    """
    run = WatchedRun(folder)
    if once:
        print(run_line(run_status(folder, history_of(folder / "history.csv"))))
        return
    feed = Feed()
    with SignalStopper() as stopper, Page(feed, lambda request: None, *place) as page:
        print(f"look at {page.url}", flush=True)
        while stopper.why() is None:
            if (news := run.news()) is not None:
                feed.put(news)
                print(run_line(news["status"]), flush=True)
            time.sleep(WATCH_S)
