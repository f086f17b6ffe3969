"""The most memory that each package takes for a pass over all patterns, and the batch that a given memory holds.

    python benchmarks/bench_limits.py [--peer ptyrad=PYTHON …] [--batch 16 --batch 64] [--memory-gib 24]

128² patterns, 12 probe modes, 6 slices; peers as for `bench_packages`. The peak is the resident memory of the whole
process on the host, its libraries and the patterns included, so this is for CPUs and Linux. A straight line through
the peaks of all batches, of the same patterns, gives bytes for a further pattern in a batch and the largest batch
within the limit. Figures are saved after every run.
"""

import tempfile
from pathlib import Path

import numpy as np
from bench_packages import PEERS, THICK, Runner, Shape, pythons_of
from common import Table, arguments, opening, save


def line(name: str, runs: list[dict], limit: float) -> dict:
    """What a package takes beside batches and for each pattern in one [bytes], and the batch that `limit` [bytes] holds."""
    good = [run for run in runs if "peak_bytes" in run]
    row = {"name": name, "peaks": {run["batch"]: run["peak_bytes"] for run in good}}
    row["failed"] = {run["batch"]: run["failed"] for run in runs if "failed" in run}
    if len(row["peaks"]) < 2:
        return row
    each, rest = np.polyfit(list(row["peaks"]), list(row["peaks"].values()), 1)
    row |= {"each": each, "rest": rest, "version": good[0]["version"]}
    return row | ({"most": int((limit - rest) / each)} if each > 0 else {})


def main():
    parser = arguments(__doc__, rounds=1)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"of {', '.join(PEERS)}"
    )
    parser.add_argument(
        "--batch", action="append", type=int, help="two or more, by default 16 and 64"
    )
    parser.add_argument("--memory-gib", type=float, default=24.0, metavar="GIB", help="the limit")
    parser.add_argument(
        "--timeout", type=float, default=600.0, metavar="SECONDS", help="of one run"
    )
    args = parser.parse_args()
    pythons = pythons_of(parser, args.peer)
    sizes = args.batch or ([2, 8] if args.quick else [16, 64])
    shapes = [Shape(*((2, 2) if args.quick else THICK), batch) for batch in sizes]
    vars(args).update(device="cpu", memory=args.memory_gib * 2**30 / 1e9, budget=60 * 24)
    opening()
    table = Table(
        name=">9s",
        **{f"batch_{size}_MB": "11.0f" for size in sizes},
        MB_a_pattern="12.1f",
        batch_held="10d",
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(pythons, Path(folder), args)
        for name in ["ours", *pythons]:
            runs = [runner.run(name, shape, max(sizes), passes=2) for shape in shapes]
            rows.append(line(name, runs, args.memory_gib * 2**30))
            megabytes = {f"batch_{size}_MB": peak / 1e6 for size, peak in rows[-1]["peaks"].items()}
            each = {"MB_a_pattern": rows[-1]["each"] / 1e6} if "each" in rows[-1] else {}
            table.line(name=name, **megabytes, **each, batch_held=rows[-1].get("most"))
            for size, why in rows[-1]["failed"].items():
                print(f"  batch {size}: {why}", flush=True)
            save(args, rows, limit=args.memory_gib)
    print("; ".join(row["version"] for row in rows if "version" in row))


if __name__ == "__main__":
    main()
