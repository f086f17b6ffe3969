"""Seconds until something happens: the package's import, and the demo from the second run on.

    python benchmarks/bench_start.py [--rounds 5] [--json FILE]

`import jaxptycho` is compared with `import jax, equinox, optax`, in turns, each in a new process. The demo
is what `jaxptycho demo` runs, in a new process with its programs kept in a folder that is empty at first (the
first run is apart); a run ends after its first epoch. Times count from the start of the process to the
first patterns of the simulation, to the first batch of the reconstruction, and to the end of its first epoch.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import HERE, Table, arguments, ask, opening, save, seconds

MOMENTS = ("first_pattern", "first_batch", "first_epoch")
GOALS = {"first_pattern": 5.0, "import": 1.0}


def demo(began: float, cache: str, out: str, positions: int) -> None:
    """The command line's demo, up to its first epoch; prints when it reached each of the moments."""
    os.environ["XDG_CACHE_HOME"] = cache
    from jaxptycho.cli import demo as running
    from jaxptycho.cli import main as cli
    from jaxptycho.jobs import simulation
    from jaxptycho.runs.progress import ProgressListener

    reached, said, simulate = {}, os.dup(1), simulation.simulate
    os.dup2(2, 1)

    def reach(moment):
        reached.setdefault(moment, time.time() - began)
        if moment == MOMENTS[-1]:
            os.write(said, (json.dumps(reached) + "\n").encode())
            os._exit(0)

    def reporting(experiment, report, *more):
        def both(patterns):
            reach("first_pattern")
            report(patterns)

        return simulate(experiment, both, *more)

    class Reporting(ProgressListener):
        def begin(self, name, epochs, patterns, done):
            self.name = name

        def batch(self, patterns):
            if self.name != "simulate":
                reach("first_batch")

        def epoch(self, row):
            reach("first_epoch")

    simulation.simulate = reporting
    running._BarAlone = Reporting
    run_demo = running.run_demo
    running.run_demo = lambda folder: run_demo(folder, positions=positions)
    sys.argv = ["jaxptycho", "demo", "--out", out]
    cli.main()


def imports(rounds: int) -> dict[str, list[float]]:
    """Seconds of a process that imports only."""
    codes = {"jax, equinox, optax": "import jax, equinox, optax", "jaxptycho": "import jaxptycho"}

    def run(code):
        return seconds(lambda: ask(sys.executable, "-c", f"{code}\nprint(0)"))

    # the first turn compiles to bytecode and fills the page cache
    turns = [{name: run(code) for name, code in codes.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:] or turns] for name in codes}


def demos(rounds: int, positions: int) -> list[dict[str, float]]:
    """When each run of the demo reached its moments [s]; the first run compiles."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            ask(
                sys.executable,
                HERE / "bench_start.py",
                "demo",
                time.time(),
                folder,
                Path(folder) / f"run{n}",
                positions,
            )
            for n in range(rounds + 1)
        ]


def main():
    if sys.argv[1:2] == ["demo"]:
        began, cache, out, positions = sys.argv[2:]
        return demo(float(began), cache, out, int(positions))
    parser = arguments(__doc__, rounds=5)
    args = parser.parse_args()
    rounds, positions = (0, 4) if args.quick else (args.rounds, 16)
    opening()
    table, rows = Table(what="<32s", first_s="8.2f", seconds="8.2f", goal="5.1f"), []

    def row(what, own, first=None, goal=None):
        rows.append(
            {
                "what": what,
                "first_s": first,
                "seconds": statistics.median(own),
                "rounds": own,
                "goal": goal,
            }
        )
        table.line(**rows[-1])

    base, ours = imports(rounds).values()
    row("import jax, equinox, optax", base)
    row("import jaxptycho", ours)
    row("the difference", [b - a for a, b in zip(base, ours, strict=True)], goal=GOALS["import"])
    first, *later = demos(rounds, positions)
    for moment in MOMENTS:
        what = f"demo, {moment.replace('_', ' ')}"
        row(what, [run[moment] for run in later or [first]], first[moment], GOALS.get(moment))
    save(args, rows)


if __name__ == "__main__":
    main()
