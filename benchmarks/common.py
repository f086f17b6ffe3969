"""What the benchmarks share: processes measured in turns, medians and ratios, tables, and what ran where.

Every contender computes in a process of its own, so that neither its allocator nor its threads are
another's. A process that is asked again and again (`Worker`) prepares once, and only one of them
computes at any time. Nothing here loads jaxptycho or a peer.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


def arguments(about: str, rounds: int) -> argparse.ArgumentParser:
    """The options of every benchmark; `rounds` is how often contenders take turns if nothing else is said."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="how often the contenders take turns"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that the script runs"
    )
    return parser


def machine() -> dict:
    """When and on what this runs."""
    return {
        "date": str(date.today()),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
        "allocator": os.environ.get("GLIBC_TUNABLES", "as installed"),
    }


def opening() -> None:
    """Says when and on what this runs."""
    found = machine()
    print(
        "{date}, {machine}, {cores} cores, Python {python}, load {load}, allocator {allocator}".format(
            **found
        )
    )


def save(args, rows: Iterable[Mapping], **more) -> None:
    """All figures as JSON, where `--json` asks for them."""
    if args.json:
        found = machine() | more | {"command": sys.argv, "rows": list(rows)}
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


class Table:
    """Lines under a header, each printed as soon as it is known; `columns` has a format for every name."""

    def __init__(self, **columns: str):
        self.columns = columns
        names = (
            (name.replace("_", " "), self._width(spec), spec[0]) for name, spec in columns.items()
        )
        print(
            "  ".join(f"{name:{'<' if side == '<' else '>'}{width}}" for name, width, side in names)
        )

    def line(self, **values) -> None:
        """One line; a value that is missing or None is a dash."""
        cells = ((values.get(name), spec) for name, spec in self.columns.items())
        print(
            "  ".join(f"{'–':>{self._width(s)}}" if v is None else format(v, s) for v, s in cells),
            flush=True,
        )

    @staticmethod
    def _width(spec: str) -> int:
        return len(format("" if spec[-1] == "s" else 0, spec))


class Failed(RuntimeError):
    """A contender's process ended without an answer."""


def ask(
    python, script, *arguments, env: Mapping[str, str] | None = None, timeout: float | None = None
) -> dict:
    """The JSON line that a script prints last; `Failed` where it takes longer than `timeout` [s]."""
    command = [str(python), str(script), *map(str, arguments)]
    cwd = Path(script).parent if Path(script).is_file() else HERE
    env = os.environ | dict(env or {})
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=cwd, env=env, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(command)} took longer than {timeout:.0f} s") from error
    if done.returncode:
        raise Failed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Worker:
    """A process that prepares a step and times it when asked; `facts` is what it said when it was ready."""

    def __init__(self, python, script, *arguments, env: Mapping[str, str] | None = None):
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(python), str(HERE / script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=HERE,
            env=os.environ | dict(env or {}),
        )
        self.facts = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.terminate()
        self.process.wait()
        self.errors.close()

    def seconds(self, repetitions: int) -> list[float]:
        """How long each of some repetitions of the step took."""
        self.process.stdin.write(f"{repetitions}\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            raise Failed("".join(self.errors.readlines()[-1:]).strip() or "it ended without a word")
        return json.loads(line)


def serve(step: Callable[[], float], **facts) -> None:
    """The other side of a `Worker`: `step` is run, and waited for, as often as asked; `facts` go first.

    The first run, which compiles and plans, is timed apart; what it returns is the `loss`.
    """
    start = time.perf_counter()
    loss = step()
    first, once = time.perf_counter() - start, seconds(step)
    print(json.dumps({"loss": loss, "first_s": first, "once_s": once} | facts), flush=True)
    for line in sys.stdin:
        print(json.dumps([seconds(step) for _ in range(int(line))]), flush=True)


def seconds(step: Callable[[], object]) -> float:
    """Wall time of one call [s]."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def in_turns(
    workers: Mapping[str, Worker], rounds: int, budget: float = 0.5
) -> dict[str, list[float]]:
    """Medians [s] of every round; in a round each worker repeats its step for about `budget` [s]."""
    medians = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            often = min(50, max(1, round(budget / worker.facts["once_s"])))
            medians[name].append(statistics.median(worker.seconds(often)))
    return medians


class Rates(NamedTuple):
    """What a device does at best, all its cores together (`rates.py`)."""

    copy: float  # bytes a second, read and written
    fft: dict[str, float]  # seconds for a plane of the shape "YxX"

    @classmethod
    def measured(
        cls, *shapes: tuple[int, int], devices: int | None = None, quick: bool = False
    ) -> "Rates":
        """Of this machine, for planes of these shapes, by a process of its own."""
        names = dict.fromkeys(f"{y}x{x}" for y, x in shapes)
        options = [] if devices is None else [f"--devices={devices}"]
        found = ask(
            sys.executable, HERE / "rates.py", *names, *options, *(["--tries=2"] if quick else [])
        )
        return cls(found["copy"], found["fft"])

    def __str__(self):
        ffts = ", ".join(
            f"{1e6 * took:.3g} µs for a plane of {shape}" for shape, took in self.fft.items()
        )
        return f"at best: {self.copy / 1e9:.3g} GB/s read and written, {ffts}"

    def floor(self, shape: tuple[int, int], planes: int, moved: int) -> float:
        """Seconds that nothing on this device is faster than: four transforms for each of `planes`, those of a pattern,
        a mode and a slice (its propagation, or placing and diffraction, each with its adjoint), and `moved` bytes."""
        y, x = shape
        return 4 * planes * self.fft[f"{y}x{x}"] + moved / self.copy


# bytes moved for a real parameter: read, and its gradient written; by Adam also two moments and it itself, read and written
OF_GRADIENT, OF_ADAM = 8, 32


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds of ours / theirs, so that what slows a whole round does not count."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
