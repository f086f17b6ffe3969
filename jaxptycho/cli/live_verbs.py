"""Verbs of live processing: `live`, `watch` and `camera`; what they do is loaded when they run."""

from pathlib import Path
from typing import Annotated

import typer

from .errors import tidy
from .options import Debug, Given, Out


@tidy
def live_pictures(
    source: Annotated[
        str,
        typer.Argument(
            help="A camera, such as merlin://localhost:6342, dectris://HOST:31001, "
            "dectris-v1://HOST:9999 or plain://HOST:PORT, or a recording that grows."
        ),
    ],
    out: Out = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="Pictures and files in a folder, without a page.")
    ] = False,
    policy: Annotated[
        str,
        typer.Option(
            help="When frames come faster than they are processed: spill (all, from the disk), "
            "block (the camera waits) or newest (pictures skip frames, the recording does not)."
        ),
    ] = "spill",
    timeout: Annotated[
        float, typer.Option(help="Seconds without data after which the session ends.")
    ] = 300.0,
    ring_mib: Annotated[int, typer.Option(help="Memory for frames that wait [MiB].")] = 256,
    series: Annotated[
        int | None, typer.Option(help="Number of series after which the session ends.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of the page; beyond this machine its link has a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 0,
    processor: Annotated[
        list[str],
        typer.Option(
            metavar="MODULE:FUNCTION", help="A processor of yours, made from the scan, beside ours."
        ),
    ] = [],  # noqa: B006
    iterate: Annotated[
        bool, typer.Option("--iterate", help="Begin an iterative reconstruction at once.")
    ] = False,
    positions: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Measured positions beside the frames: lines of number, y, x (Å) from "
            "tcp://HOST:PORT or a file that grows.",
        ),
    ] = None,
    settings: Given = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Show and record a scan while a camera sends it, in a page of the browser."""
    from .live import run_live

    place = None if headless else (host, port)
    further = processor, iterate, positions
    run_live(source, out, policy, timeout, ring_mib, series, place, *further, settings)


@tidy
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    host: Annotated[
        str, typer.Option(help="Address of the page; beyond this machine its link has a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.")] = 0,
    once: Annotated[bool, typer.Option("--once", help="Print the present state, and end.")] = False,
    debug: Debug = False,
) -> None:
    """Follow a run in the browser while it goes on: losses, time left and figures."""
    from .live import run_watch

    run_watch(run, (host, port), once)


@tidy
def simulated_camera(
    file: Annotated[Path, typer.Argument(help="A measurement, which is replayed.")],
    protocol: Annotated[
        str, typer.Option(help="plain, merlin, dectris (stream V2) or dectris-v1.")
    ] = "plain",
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.")] = 0,
    rate: Annotated[float, typer.Option(help="Frames per second; 0 is as fast as possible.")] = 0,
    drop: Annotated[float, typer.Option(help="Fraction of the frames that are lost.")] = 0,
    double: Annotated[int, typer.Option(help="Number of frames that come twice.")] = 0,
    shuffle: Annotated[int, typer.Option(help="Places by which frames may be displaced.")] = 0,
    series: Annotated[int, typer.Option(help="Number of series.")] = 1,
    late_positions: Annotated[
        int | None,
        typer.Option(help="Send positions from a port of their own, as many frames late."),
    ] = None,
    settings: Given = [],  # noqa: B006
    debug: Debug = False,
) -> None:
    """Simulate a camera that sends a measurement, with the faults of real transmissions."""
    from ..live.camera.replay import Faults
    from .live import run_camera

    faults = Faults(drop, double, shuffle)
    run_camera(file, protocol, host, port, rate, faults, series, late_positions, settings)
