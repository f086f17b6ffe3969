"""Seconds per epoch of phaser's LSQML multislice reconstruction of a raster scan in the native format."""

import time

from _peer import arguments, report, wavelength

args = arguments(
    __doc__, slices=4, batch=64, flags={"--fixed-positions": "positions stay as they are"}
)

import h5py
import pane
from phaser.execute import execute_plan
from phaser.observer import Observer
from phaser.plan import ReconsPlan

with h5py.File(args.dataset) as file:
    about = {key: file.attrs[key] for key in file.attrs}
voltage = float(about["voltage_kv"])


class Clock(Observer):
    """Wall time [s] and mean error of every iteration."""

    def __init__(self):
        self.seconds, self.losses = [], []

    def start_engine(self, init_state):
        self.start = time.perf_counter()

    def update_iteration(self, state, i, n, errors):
        now = time.perf_counter()
        self.seconds.append(now - self.start)
        self.losses.append(errors["total_loss"])
        self.start = now


plan = {
    "name": "benchmark",
    "backend": "jax",
    "raw_data": {
        "type": "manual",
        "path": args.dataset,
        "key": "counts",
        "kv": voltage,
        "diff_step": float(about["dk_inverse_angstrom"]) * wavelength(voltage) * 1e3,
        "adu": 1.0,
    },
    "init": {
        "probe": {
            "type": "focused",
            "conv_angle": float(about["semiangle_mrad"]),
            "defocus": -float(about["defocus_angstrom"]),
        },
        "scan": {
            "type": "raster",
            "shape": [int(n) for n in about["scan_shape"]],
            "step_size": float(about["scan_step_angstrom"]),
        },
    },
    "engines": [
        {
            "type": "conventional",
            "niter": args.epochs,
            "grouping": args.batch,
            "probe_modes": args.modes,
            "bwlim_frac": 1.0,
            "noise_model": {"type": "amplitude"},
            "solver": {"type": "lsqml", "beta_probe": 0.1},
            "position_solver": {
                "type": "momentum",
                "momentum": 0.9,
                "step_size": 2.0,
                "max_step_size": 0.1,
            },
            "group_constraints": [],
            "iter_constraints": [
                {"type": "limit_probe_support", "max_angle": float(about["semiangle_mrad"]) + 1.0}
            ],
            "update_probe": True,
            "update_positions": not args.fixed_positions,
        }
    ],
}
if args.slices > 1:
    plan["slices"] = {"n": args.slices, "total_thickness": float(about["thickness_angstrom"])}
clock = Clock()
execute_plan(pane.from_data(plan, ReconsPlan), seed=0, override_observers=clock)
report(args, "phaserEM", clock.seconds, clock.losses)
