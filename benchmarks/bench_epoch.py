"""Seconds per epoch on the measured datasets, beside the packages that others use.

    python benchmarks/bench_epoch.py DATA [--peer ptychi=PYTHON] [--peer cdtools=PYTHON] …

PYTHON is the interpreter of an environment that holds the peer (`benchmarks/peers/README.md`).
Every package runs in a process of its own, in turn with ours; a row is the median over rounds
of each process' median epoch, compile time apart. A peer that is not given is compared with its
figure in the data's README, measured on two other CPU cores.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent
SIEMENS, ROTAVIRUS = "siemens_star_xray.h5", "rotavirus_300kV_64x64.h5"
NEAR, BILAYER = "petra3_near_field_xray.cxi", "wse2_mos2_bilayer_80kV_1e5.h5"
# dataset, modes, slices, our batch, further arguments of ours, peer, its further arguments, its figure elsewhere [s], goal
ROWS = (
    (SIEMENS, 2, 1, 104, [], "ptychi", ["--refine-positions"], 0.76, 0.15),
    (SIEMENS, 2, 1, 104, ["--fixed-positions"], "ptychi", [], 0.76, 0.15),
    (ROTAVIRUS, 1, 1, 128, ["--fixed-positions"], "ptychi", [], 5.7, 0.15),
    (NEAR, 1, 1, 40, ["--focus-to-sample", "3.65e7"], "cdtools", [], 0.37, 0.2),
    (BILAYER, 1, 4, 64, ["--fixed-positions"], "ptyrad", [], 1.9, 0.35),
    (BILAYER, 1, 4, 64, ["--fixed-positions"], "phaser", [], 2.4, 0.35),
)


def run(python, script, *arguments):
    """The JSON line that a measuring script prints."""
    command = [python, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(row, folder, peers, rounds, epochs):
    dataset, modes, slices, batch, more, peer, peer_more, figure, goal = row
    common = [folder / dataset, "--epochs", epochs, "--modes", modes, "--slices", slices]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(run(sys.executable, HERE / "ours_run.py", *common, "--batch", batch, *more))
        if peer in peers:
            theirs.append(run(peers[peer], HERE / "peers" / f"{peer}_run.py", *common, *peer_more))
    mine = statistics.median(o["seconds_per_epoch_median"] for o in ours)
    other = statistics.median(t["seconds_per_epoch_median"] for t in theirs) if theirs else figure
    return {
        "dataset": dataset,
        "modes": modes,
        "slices": slices,
        "ours_s": mine,
        "compile_s": ours[0]["seconds_first_epoch"] - mine,
        "peer": " ".join([peer, *peer_more]) + ("" if theirs else " (its figure, another machine)"),
        "peer_s": other,
        "ratio": mine / other,
        "goal": goal,
        "versions": [ours[0]["version"]] + [t["version"] for t in theirs[:1]],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", help="a part of the dataset's name")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    peers = dict(peer.split("=", 1) for peer in args.peer)
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{'dataset':32} {'modes':>5} {'slices':>6} {'ours':>8} {'first':>7} {'peer':>8}  {'ratio':>6} {'goal':>5}")
    results = []
    for row in ROWS:
        if args.only and args.only not in row[0]:
            continue
        r = compare(row, args.data.resolve(), peers, args.rounds, args.epochs)
        results.append(r)
        print(
            f"{r['dataset']:32} {r['modes']:5} {r['slices']:6} {r['ours_s']:7.3f}s {r['compile_s']:6.1f}s "
            f"{r['peer_s']:7.3f}s  {r['ratio']:6.3f} {r['goal']:5}  {r['peer']}; {'; '.join(r['versions'])}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
