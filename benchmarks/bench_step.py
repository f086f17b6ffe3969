"""Milliseconds for loss and gradient of a batch, jaxptycho beside PyTorch in five forms, in turns.

    python benchmarks/bench_step.py [--torch PYTHON] [--all] [--case SHOTS,PIXELS,SLICES,MODES]… [--json FILE]

Both compute the amplitude loss of the same shots and its gradient by the specimen's phase and the probe;
their losses are compared first. jaxptycho runs as its command line does, one XLA device for each core.
PyTorch runs as installed; tuned (huge pages, memory kept instead of given back, one arena); tuned and in
micro-batches of the size that is fastest; tuned and compiled; and as installed with windows cut in a loop
over positions. A ratio is the median over rounds; what compiles and plans is the first run, apart. The floor is that of
`common.Rates`: transforms, and counts and parameters moved once.
PYTHON is the interpreter of an environment that holds PyTorch, by default the one that runs this.
"""

import contextlib
import itertools
import os
import statistics
import sys

from common import (
    OF_GRADIENT,
    Failed,
    Rates,
    Table,
    Worker,
    arguments,
    in_turns,
    opening,
    ratio,
    save,
)
from problem import Case

# memory is kept and reused in huge pages: glibc's allocator, then PyTorch's own request
TUNED = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1"
    ":glibc.malloc.trim_threshold=68719476736:glibc.malloc.top_pad=67108864",
    "THP_MEM_ALLOC_ENABLE": "1",
}
FORMS = {  # of PyTorch, with the settings of the process
    "torch": ("batch", {}),
    "tuned": ("batch", TUNED),
    "tuned, micro": ("micro", TUNED),
    "tuned, compiled": ("compiled", TUNED),
    "loop": ("loop", {}),
}
TINY = (Case(4, 16, 2, 2),)
USUAL = (
    Case(64, 128, 10, 4),
    Case(64, 128, 1, 4),
    Case(64, 128, 1, 1),
    Case(64, 128, 6, 12),
    Case(32, 192, 6, 4),
    Case(32, 128, 21, 1),
    Case(16, 256, 10, 4),
    Case(64, 64, 10, 4),
    Case(4, 512, 6, 1),
)
ALL = tuple(
    Case(shots, pixels, slices, modes)
    for (shots, pixels), slices, modes in itertools.product(
        ((64, 64), (64, 128), (16, 256), (4, 512)), (1, 6, 10, 21), (1, 4, 12)
    )
)
GOALS = {(Case(64, 128, 10, 4), "torch"): 0.25, (Case(64, 128, 10, 4), "tuned, micro"): 0.65} | {
    (Case(64, 128, 1, modes), form): goal
    for modes in (1, 4)
    for form, goal in (("torch", 0.2), ("tuned, micro", 0.4))
}


def compare(case: Case, python: str, forms, rounds: int) -> list[dict]:
    """One row for every contender that runs; a peer that fails has a row that says why."""
    with contextlib.ExitStack() as stack:
        workers, failed = (
            {"jaxptycho": stack.enter_context(Worker(sys.executable, "ours_step.py", *case))},
            [],
        )
        for name in forms:
            form, env = FORMS[name]
            try:
                workers[name] = stack.enter_context(
                    Worker(python, "torch_step.py", *case, form, env=env)
                )
            except Failed as error:
                failed.append(case._asdict() | {"contender": name, "failed": str(error)})
        wanted = workers["jaxptycho"].facts["loss"]
        for name, worker in workers.items():
            found = worker.facts["loss"]
            if not abs(found - wanted) < 1e-4 * wanted:
                raise SystemExit(
                    f"{name} finds a loss of {found:.8g}, jaxptycho {wanted:.8g}: not the same computation"
                )
        rounds_of = in_turns(workers, rounds)
        facts = {name: worker.facts for name, worker in workers.items()}
    ours = rounds_of["jaxptycho"]
    return [
        case._asdict()
        | facts[name]
        | {
            "contender": name,
            "seconds": statistics.median(own),
            "ratio": ratio(ours, own),
            "rounds": own,
        }
        | {"goal": GOALS.get((case, name)), "settings": FORMS[name][1] if name in FORMS else {}}
        for name, own in rounds_of.items()
    ] + failed


def floor(case: Case, rates: Rates) -> float:
    """Seconds that no contender can do without: counts of two bytes, phases and probe as `problem` has them."""
    counts = 2 * case.shots * case.pixels**2
    parameters = (4 * case.slices + 2 * case.modes) * case.pixels**2
    planes = case.shots * case.slices * case.modes
    return rates.floor((case.pixels, case.pixels), planes, counts + OF_GRADIENT * parameters)


def main():
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON")
    parser.add_argument(
        "--all", action="store_true", help="every number of slices, modes and pixels"
    )
    parser.add_argument(
        "--case", action="append", type=lambda text: Case(*map(int, text.split(",")))
    )
    parser.add_argument(
        "--form", action="append", choices=FORMS, help="only these of PyTorch's forms"
    )
    args = parser.parse_args()
    cases = args.case or (ALL if args.all else TINY if args.quick else USUAL)
    opening()
    print(
        f"tuned: {' '.join(f'{k}={v}' for k, v in TUNED.items())}; PyTorch in {os.path.abspath(args.torch)}"
    )
    rates = Rates.measured(*((case.pixels, case.pixels) for case in cases), quick=args.quick)
    print(rates)
    table = Table(
        case=">22s", contender=">15s", ms="9.1f", first_s="8.1f", ratio="6.2f", goal="5.2f", floor_ms="8.1f",
        to_floor="8.1f",
    )  # fmt: skip
    rows, versions = [], {}
    for case in cases:
        least = floor(case, rates)
        label = f"{case.shots} × {case.pixels}², {case.slices} sl, {case.modes} m"
        for row in compare(case, args.torch, args.form or FORMS, 1 if args.quick else args.rounds):
            if "seconds" in row:
                row |= {
                    "ms": 1e3 * row["seconds"],
                    "floor_ms": 1e3 * least,
                    "to_floor": row["seconds"] / least,
                }
            rows.append(row)
            table.line(case=label, **{k: row.get(k) for k in table.columns if k != "case"})
            versions |= (
                {row["version"]: row["device"]}
                if "version" in row
                else {row["failed"]: row["contender"]}
            )
    print("; ".join(f"{version} ({device})" for version, device in versions.items()))
    save(args, rows)


if __name__ == "__main__":
    main()
