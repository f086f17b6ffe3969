"""Seconds per epoch on the measured datasets, beside the packages that others use.

    python benchmarks/bench_epoch.py DATA [--peer ptychi=PYTHON] [--peer cdtools=PYTHON] …

PYTHON is the interpreter of an environment that holds the peer (`benchmarks/peers/README.md`).
Every package runs in a process of its own, in turn with ours; a row is the median over rounds
of each process' median epoch, compile time apart. A peer that is not given is compared with its
figure in the data's README, measured on two other CPU cores. The floor is that of `common.Rates`.
"""

import statistics
import sys
from pathlib import Path

from common import HERE, Rates, Table, arguments, ask, opening, save

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


def compare(row, folder, peers, rounds, epochs):
    dataset, modes, slices, batch, more, peer, peer_more, figure, goal = row
    common = [folder / dataset, "--epochs", epochs, "--modes", modes, "--slices", slices]
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(ask(sys.executable, HERE / "ours_run.py", *common, "--batch", batch, *more))
        if peer in peers:
            theirs.append(ask(peers[peer], HERE / "peers" / f"{peer}_run.py", *common, *peer_more))
    shape = ours[0]["shape"]
    floor = Rates.measured(shape, quick=epochs < 3).floor(
        shape, ours[0]["planes"], ours[0]["moved"]
    )
    mine = statistics.median(o["seconds_per_epoch_median"] for o in ours)
    other = statistics.median(t["seconds_per_epoch_median"] for t in theirs) if theirs else figure
    return {
        "dataset": dataset,
        "modes": modes,
        "slices": slices,
        "ours_s": mine,
        "first_s": ours[0]["seconds_first_epoch"] - mine,
        "peer": " ".join([peer, *peer_more]) + ("" if theirs else " (its figure, another machine)"),
        "peer_s": other,
        "ratio": mine / other,
        "goal": goal,
        "floor_s": floor,
        "to_floor": mine / floor,
        "versions": "; ".join([ours[0]["version"]] + [t["version"] for t in theirs[:1]]),
    }


def main():
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--only", default="", help="a part of the dataset's name")
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    peers = dict(peer.split("=", 1) for peer in args.peer)
    rounds, epochs = (1, 2) if args.quick else (args.rounds, args.epochs)
    opening()
    table, results = Table(
        dataset="<32s", modes="5d", slices="6d", ours_s="8.3f", first_s="8.1f", peer_s="8.3f", ratio="6.3f", goal="5.2f",
        floor_s="8.3f", to_floor="8.1f", peer="<32s", versions="<60s",
    ), []  # fmt: skip
    for row in ROWS:
        if args.only in row[0]:
            results.append(compare(row, args.data.resolve(), peers, rounds, epochs))
            table.line(**results[-1])
    save(args, results)


if __name__ == "__main__":
    main()
