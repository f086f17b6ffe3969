"""Seconds for one pass over all patterns, jaxptycho beside five packages on the shapes of the published benchmarks.

    python benchmarks/bench_packages.py --peer ptyrad=PYTHON [--peer phaser=PYTHON …] [--budget MINUTES]

128² patterns, 12 probe modes and 6 slices at batches of 16, 128 and 1024, 1 mode and 1 slice also at 1. PYTHON is
the interpreter of an environment that holds the peer (`peers/README.md`). Every run is a process of its own, in
turns with ours, which runs before and after the others; positions stay fixed in all. A pass that compiles and plans
is the first, apart; the floor is that of `common.Rates`. On CPUs the thick shape has fewer patterns, but at least a
batch, since a pass takes minutes in some packages; what does not fit the memory, the time of a run or the budget is a
dash. Figures are saved after every run.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import HERE, Failed, Rates, Table, arguments, ask, opening, save

GOAL, FLAT = 0.3, 1.3  # ours over the fastest; batch 16 over batch 1024
FIXED = {
    "ours": ["--fixed-positions"],
    "ptyrad": ["--fixed-positions"],
    "phaser": ["--fixed-positions"],
}
PEERS = ("ptyrad", "phaser", "ptychi", "quantem", "py4dstem")


class Shape(NamedTuple):
    """What is asked of a package."""

    modes: int
    slices: int
    batch: int


THICK, THIN = (12, 6), (1, 1)
SIZES = ((THICK, 16), (THIN, 16), (THICK, 128), (THIN, 128), (THIN, 1024), (THIN, 1), (THICK, 1024))
SHAPES = tuple(
    Shape(*size, batch) for size, batch in SIZES
)  # the one that does not fit every package last
QUICK = tuple(Shape(*size, batch) for size in ((2, 2), THIN) for batch in (4, 16))


class Runner:
    """Runs packages on datasets of any number of patterns, within a budget of time."""

    def __init__(self, pythons, folder: Path, args):
        self.pythons, self.folder, self.device, self.timeout = (
            pythons,
            folder,
            args.device,
            args.timeout,
        )
        self.memory = args.memory
        self.end = time.monotonic() + 60 * args.budget
        self.env = {"JAX_PLATFORMS": "cpu"} if args.device == "cpu" else {}

    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.end - time.monotonic()

    def data(self, patterns: int) -> Path:
        """A file of so many patterns, simulated when it is first asked for."""
        path = self.folder / f"{patterns}.h5"
        if not path.exists():
            start = time.monotonic()
            command = [
                sys.executable,
                str(HERE / "published_data.py"),
                str(path),
                "--patterns",
                str(patterns),
            ]
            subprocess.run(command, env=os.environ | self.env, check=True)
            self.end += time.monotonic() - start
        return path

    def run(self, name: str, shape: Shape, patterns: int, passes: int) -> dict:
        """What one process says, or why it failed."""
        row = shape._asdict() | {"patterns": patterns, "name": name}
        path = self.data(patterns)
        options = [f"--{key}={value}" for key, value in shape._asdict().items()]
        options += [f"--epochs={passes}", *FIXED.get(name, [])]
        if name == "ours":
            python, script = sys.executable, HERE / "ours_run.py"
        else:
            python, script = self.pythons[name], HERE / "peers" / f"{name}_run.py"
            options += [f"--device={self.device}"] + (
                [f"--memory={self.memory}"] if self.device == "cpu" else []
            )
        if self.left() < 5:
            return row | {"failed": "no time left in the budget"}
        try:
            said = ask(
                python, script, path, *options, env=self.env, timeout=min(self.timeout, self.left())
            )
        except Failed as error:
            return row | {"failed": str(error).strip().splitlines()[-1]}
        seconds = said["seconds_per_epoch_median"]
        row |= {key: said[key] for key in ("peak_bytes", "shape", "planes", "moved") if key in said}
        return row | {
            "seconds": seconds,
            "ms_per_pattern": 1e3 * seconds / patterns,
            "first_s": said["seconds_first_epoch"],
            "loss": (said["loss_first"], said["loss_last"]),
            "version": f"{said['package']} {said['version']}",
        }


def summary(rows: list[dict]) -> list[dict]:
    """One row for each shape and package: medians over its runs, or why there is none."""
    groups: dict = {}
    for row in rows:
        groups.setdefault((row["modes"], row["slices"], row["batch"], row["name"]), []).append(row)
    merged = []
    for runs in groups.values():
        good = [run for run in runs if "seconds" in run]
        medians = {
            key: statistics.median(run[key] for run in good)
            for key in ("seconds", "ms_per_pattern", "first_s")
            if good
        }
        merged.append((good or runs)[0] | medians)
    for row in merged:
        same = [r for r in merged if all(r[k] == row[k] for k in Shape._fields) and "seconds" in r]
        others, ours = [
            [r["seconds"] for r in same if (r["name"] == "ours") is is_ours]
            for is_ours in (False, True)
        ]
        if "seconds" in row and ours and others:
            row["ratio"] = ours[0] / (min(others) if row["name"] == "ours" else row["seconds"])
    return merged


def beside_floor(rows: list[dict], rates: Rates) -> list[dict]:
    """The same with the seconds that no package can do without, and how far above them each is."""

    def size(row):
        return tuple(row[key] for key in Shape._fields)

    least = {
        size(row): rates.floor(row["shape"], row["planes"], row["moved"])
        for row in rows
        if "planes" in row
    }

    def beside(row):
        if "seconds" not in row or size(row) not in least:
            return row
        return row | {"floor": least[size(row)], "to_floor": row["seconds"] / least[size(row)]}

    return list(map(beside, rows))


def flatness(rows: list[dict]) -> list[dict]:
    """Time per pattern at batch 16 over that at batch 1024, for every package that ran both."""
    found = {
        (r["modes"], r["slices"], r["name"], r["batch"]): r.get("ms_per_pattern") for r in rows
    }
    pairs = (
        (key[:3], value, found.get((*key[:3], 1024)))
        for key, value in found.items()
        if key[3] == 16
    )
    return [
        {"modes": modes, "slices": slices, "name": name, "flatness": small / large}
        for (modes, slices, name), small, large in pairs
        if small and large
    ]


def show(rows: list[dict]) -> None:
    """The tables."""
    print("\nratio: ours over this one; of ours, over the fastest")
    size = {"modes": "5d", "slices": "6d"}
    table = Table(
        **size,
        batch="5d",
        patterns="8d",
        name=">9s",
        s="9.3f",
        ms_per_pattern="14.3f",
        first_s="8.1f",
        ratio="6.2f",
        goal="5.2f",
        floor="8.3f",
        to_floor="8.1f",
    )
    for row in rows:
        table.line(**row, s=row.get("seconds"), goal=GOAL if row["name"] == "ours" else None)
    for row in rows:
        if "failed" in row and "seconds" not in row:
            print(
                f"{row['name']} at {row['modes']} modes, {row['slices']} slices, batch {row['batch']}: {row['failed']}"
            )
    flat = flatness(rows)
    if flat:
        print("\ntime per pattern at batch 16 over batch 1024")
        table = Table(**size, name=">9s", flatness="8.2f", goal="5.2f")
        for row in flat:
            table.line(**row, goal=FLAT if row["name"] == "ours" else None)
    print("; ".join(dict.fromkeys(row["version"] for row in rows if "version" in row)))


def pythons_of(parser: argparse.ArgumentParser, peers: list[str]) -> dict[str, str]:
    """Interpreter of each peer, from `NAME=PYTHON`; the parser refuses names of no peer."""
    pythons = {name: os.path.abspath(python) for name, python in (p.split("=", 1) for p in peers)}
    unknown = sorted(set(pythons) - set(PEERS))
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; known are {', '.join(PEERS)}")
    return pythons


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"of {', '.join(PEERS)}"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--patterns", type=int, help="by default 1024, on a GPU 16384")
    parser.add_argument(
        "--thick-patterns",
        type=int,
        help="where there is more than one slice; by default 128 on CPUs",
    )
    parser.add_argument(
        "--shape",
        action="append",
        type=lambda text: Shape(*map(int, text.split(","))),
        metavar="MODES,SLICES,BATCH",
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=3,
        help="over all patterns in a run, the first apart; one less where thick",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=20.0,
        metavar="MINUTES",
        help="after which nothing is started",
    )
    parser.add_argument(
        "--timeout", type=float, default=200.0, metavar="SECONDS", help="of one run"
    )
    memory = 0.75e-9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parser.add_argument(
        "--memory", type=float, default=round(memory, 1), metavar="GB", help="of one run on a CPU"
    )
    parser.set_defaults(json=Path(tempfile.gettempdir()) / "bench_packages.json")
    args = parser.parse_args()
    pythons = pythons_of(parser, args.peer)
    most = args.patterns or (32 if args.quick else 1024 if args.device == "cpu" else 16384)
    thick = args.thick_patterns or (128 if args.device == "cpu" else most)
    opening()
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(pythons, Path(folder), args)
        for shape in args.shape or (QUICK if args.quick else SHAPES):
            patterns = most if shape.slices == 1 else min(most, max(thick, shape.batch))
            for name in ["ours", *pythons, "ours"] * args.rounds:
                passes = args.passes - (name != "ours" and shape.slices > 1 and args.passes > 2)
                rows.append(runner.run(name, shape, patterns, passes))
                took = (
                    f"{rows[-1]['seconds']:.3f} s" if "seconds" in rows[-1] else rows[-1]["failed"]
                )
                print(
                    f"{shape.modes} modes, {shape.slices} slices, batch {shape.batch}: {name} {took}",
                    flush=True,
                )
                save(args, rows, summary=summary(rows), flatness=flatness(summary(rows)))
    found = summary(rows)
    if shapes := {tuple(row["shape"]) for row in rows if "planes" in row}:
        rates = Rates.measured(*shapes, quick=args.quick)
        print(f"\n{rates}")
        found = beside_floor(found, rates)
        save(args, rows, summary=found, flatness=flatness(found))
    show(found)
    print(f"all figures: {args.json}")


if __name__ == "__main__":
    main()
