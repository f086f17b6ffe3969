"""Peak bytes of loss and gradient of a batch against slices, modes and shots, beside PyTorch.

    python benchmarks/bench_memory.py [--peer PYTHON] [--case "32 128 50 4"]

Ours in its default plan, √-checkpointed, reversible, and in the leanest plan that a budget can lead to;
PyTorch with the whole batch at once, and in micro-batches of four shots. Every
contender computes in a process of its own; planned is what our compiler says before anything runs, peak
is what the process grows by. Ratios are to PyTorch with the whole batch at once. PYTHON holds PyTorch.
"""

import statistics
import sys

from common import Failed, Table, arguments, ask, opening, save
from problem import Case

CONTENDERS = ("jaxptycho", "sqrt", "reversible", "leanest", "torch", "torch, micro")
# 32 patterns of 128² with 4 modes against slices, then against modes, patterns and pixels at 10 slices
CASES = (
    *(Case(32, 128, slices, 4) for slices in (1, 4, 10, 21, 50)),
    *(Case(32, 128, 10, modes) for modes in (1, 12)),
    *(Case(shots, 128, 10, 4) for shots in (8, 128)),
    Case(8, 256, 10, 4),
)
QUICK = (Case(4, 32, 6, 2),)


def measure(args, case: Case) -> list[dict]:
    """A row for every contender, medians over rounds in which they take turns."""
    found = {name: [] for name in args.contender or CONTENDERS}
    for _ in range(args.rounds):
        for name, results in found.items():
            python = args.peer if name.startswith("torch") else sys.executable
            try:
                results.append(
                    ask(python, "memory_step.py", *case, name, args.repetitions, timeout=600)
                )
            except Failed as error:
                results.append({"failed": str(error).strip().splitlines()[-1]})
    rows = [_row(case, name, results) for name, results in found.items()]
    peer = next((row for row in rows if row["contender"] == "torch"), {})
    for row in rows:
        for what in ("peak_MB", "ms"):
            row[f"{what}_ratio"] = row[what] / peer[what] if what in row and what in peer else None
    return rows


def _row(case: Case, name: str, results: list[dict]) -> dict:
    good = [r for r in results if "failed" not in r]
    if not good:
        return case._asdict() | {"contender": name, "failed": results[0]["failed"]}
    return case._asdict() | {
        "contender": name,
        "planned_MB": good[0]["planned_bytes"] and good[0]["planned_bytes"] / 1e6,
        "peak_MB": statistics.median(r["peak_bytes"] for r in good) / 1e6,
        "ms": 1e3 * statistics.median(r["seconds"] for r in good),
        "loss": good[0]["loss"],
        "version": good[0]["version"],
    }


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument(
        "--peer", default=sys.executable, metavar="PYTHON", help="the Python that holds PyTorch"
    )
    parser.add_argument("--case", action="append", metavar='"SHOTS PIXELS SLICES MODES"')
    parser.add_argument("--contender", action="append", choices=CONTENDERS, help="default: all")
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    cases = [Case(*map(int, c.split())) for c in args.case or ()] or (
        QUICK if args.quick else CASES
    )
    opening()
    table = Table(
        shots="5d", pixels="6d", slices="6d", modes="5d", contender="<12s", planned_MB="10.1f", peak_MB="8.1f",
        ms="8.1f", peak_MB_ratio="13.2f", ms_ratio="8.2f",
    )  # fmt: skip
    rows = []
    for case in cases:
        for row in measure(args, case):
            rows.append(row)
            table.line(**row)
            if "failed" in row:
                print(f"  {row['failed']}", flush=True)
    save(args, rows)


if __name__ == "__main__":
    main()
