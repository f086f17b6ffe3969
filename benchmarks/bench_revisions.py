"""CPU seconds of this checkout of the package over those of another one, in turns.

    python benchmarks/bench_revisions.py CHECKOUT [--data FILE]… [--rounds 5] [--json FILE]

CHECKOUT is a folder with another revision (`git worktree add CHECKOUT REVISION`). Each revision runs its own
scripts in its own processes: loss and gradient of a batch (`ours_step.py`), the same of a tilt series whose volume
turns (`bench_tilts.py`), epochs over each FILE with all that comes before them (`ours_run.py`), the import, and the
demo up to its first epoch with its programs compiled before (`bench_start.py`). CPU seconds, of all threads, are
compared because other work disturbs them less than the clock; a ratio is the median over rounds. Linux only.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from common import HERE, Table, Worker, arguments, ask, opening, save, serve
from problem import Case

CASES = (Case(64, 128, 10, 4), Case(64, 128, 1, 4), Case(64, 64, 10, 4), Case(16, 256, 10, 4))
KERNELS = ("linear", "cubic, Euler")
TICKS = os.sysconf("SC_CLK_TCK")  # a second
BUDGET = 2.0  # s of a step's repetitions in a round


def serve_tilts(checkout: str, kernel: str, side: str) -> None:
    """Loss and gradient of a batch of a tilt series by the checkout's `bench_tilts`, for a `Worker`."""
    sys.path[:1] = [f"{checkout}/benchmarks"]
    import bench_tilts
    import jax

    args = SimpleNamespace(views=5, side=int(side), shots=64, batch=64)
    specimens = bench_tilts.specimens(args)
    data = bench_tilts.series(args, bench_tilts.model_of(args, specimens["plain"]))
    batch = jax.tree.map(jax.numpy.asarray, bench_tilts.make_batch(data, 0, range(args.batch)))
    step, _ = bench_tilts.gradient_of(bench_tilts.model_of(args, specimens[kernel]), batch)
    serve(lambda: float(step()[0]))


def cpu(pid: int) -> float:
    """CPU seconds of a process that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def steps(roots: list[Path], rounds: int, script: str, *arguments) -> list[tuple[float, ...]]:
    """CPU seconds of a step in each round, of every revision."""
    environments = [{"PYTHONPATH": str(root)} for root in roots]
    with (
        Worker(sys.executable, *_of(roots[0], script, arguments), env=environments[0]) as one,
        Worker(sys.executable, *_of(roots[1], script, arguments), env=environments[1]) as other,
    ):
        often = max(2, round(BUDGET / max(one.facts["once_s"], other.facts["once_s"])))

        def took(worker: Worker) -> float:
            before = cpu(worker.process.pid)
            worker.seconds(often)
            return (cpu(worker.process.pid) - before) / often

        return [(took(one), took(other)) for _ in range(rounds)]


def _of(root: Path, script: str, arguments) -> tuple:
    """Script and arguments of a worker of a revision."""
    if script == "tilts":
        return HERE / "bench_revisions.py", "tilts", root, *arguments
    return root / "benchmarks" / script, *arguments


def processes(rounds: int, *runs: Callable[[], object]) -> list[tuple[float, ...]]:
    """CPU seconds of the processes that each of `runs` starts and waits for, in each round but the first."""

    def took(run: Callable[[], object]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return [tuple(map(took, runs)) for _ in range(rounds + 1)][1:]


def imports(root: Path) -> Callable[[], object]:
    """Process that imports the package."""
    code = "import jaxptycho\nprint(0)"
    return lambda: ask(sys.executable, "-c", code, env={"PYTHONPATH": str(root)})


def demo(root: Path, folder: Path) -> Callable[[], object]:
    """Process that runs the demo up to its first epoch."""
    script, env = root / "benchmarks" / "bench_start.py", {"PYTHONPATH": str(root)}

    def run() -> object:
        out = tempfile.mkdtemp(dir=folder)
        return ask(sys.executable, script, "demo", time.time(), folder, f"{out}/run", 8, env=env)

    return run


def epochs(root: Path, file: Path, number: int) -> Callable[[], object]:
    """Process that reads a file, compiles and runs some epochs."""
    script, env = root / "benchmarks" / "ours_run.py", {"PYTHONPATH": str(root)}
    return lambda: ask(sys.executable, script, file.resolve(), f"--epochs={number}", env=env)


def main() -> None:
    if sys.argv[1:2] == ["tilts"]:
        return serve_tilts(*sys.argv[2:])
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[], metavar="FILE")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    roots = [args.checkout.resolve(), HERE.parent]
    opening()
    table, rows = Table(what="<34s", before_s="9.3f", after_s="9.3f", ratio="6.3f"), []

    def row(what: str, turns: list[tuple[float, ...]]) -> None:
        before, after = zip(*turns, strict=True)
        rows.append(
            {
                "what": what,
                "before_s": statistics.median(before),
                "after_s": statistics.median(after),
                "ratio": statistics.median(b / a for a, b in turns),
                "rounds": turns,
            }
        )
        table.line(**rows[-1])
        save(args, rows)

    for case in (Case(4, 32, 2, 2),) if args.quick else CASES:
        name = "step, {} × {}², {} slices, {} modes".format(*case)
        row(name, steps(roots, rounds, "ours_step.py", *case))
    for kernel in KERNELS[:1] if args.quick else KERNELS:
        side = 72 if args.quick else 96
        row(f"tilt series, {kernel}", steps(roots, rounds, "tilts", kernel, side))
    for file in args.data:
        name = f"{file.stem}, 6 epochs"
        row(name, processes(rounds, *(epochs(root, file, 6) for root in roots)))
    row("import", processes(rounds, *map(imports, roots)))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        folders = zip(roots, map(Path, (one, other)), strict=True)
        row("demo to its first epoch", processes(rounds, *(demo(*each) for each in folders)))


if __name__ == "__main__":
    main()
