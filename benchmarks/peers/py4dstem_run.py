"""Seconds per epoch of py4DSTEM's gradient descent on a raster scan in the native format, in one slice or several."""

import time

from _peer import arguments, report

args = arguments(__doc__, batch=128)

import h5py
import numpy as np
import py4DSTEM
from py4DSTEM.process import phase

with h5py.File(args.dataset) as file:
    about = {key: file.attrs[key] for key in file.attrs}
    counts = file["counts"][()].astype(np.float32)
    positions = file["positions"][()]
scan = tuple(int(n) for n in about["scan_shape"])
cube = py4DSTEM.DataCube(counts.reshape(*scan, *counts.shape[1:]))
for axis in ("R", "Q"):
    size = "scan_step_angstrom" if axis == "R" else "dk_inverse_angstrom"
    getattr(cube.calibration, f"set_{axis}_pixel_size")(float(about[size]))
    getattr(cube.calibration, f"set_{axis}_pixel_units")("A" if axis == "R" else "A^-1")

np.random.seed(0)  # noqa: NPY002
kind = {
    (False, False): phase.SingleslicePtychography,
    (False, True): phase.MultislicePtychography,
    (True, False): phase.MixedstatePtychography,
    (True, True): phase.MixedstateMultislicePtychography,
}[args.modes > 1, args.slices > 1]
shape = {"num_probes": args.modes} if args.modes > 1 else {}
if args.slices > 1:
    shape |= {
        "num_slices": args.slices,
        "slice_thicknesses": float(about["thickness_angstrom"]) / args.slices,
    }
task = kind(
    datacube=cube,
    energy=float(about["voltage_kv"]) * 1e3,
    semiangle_cutoff=float(about["semiangle_mrad"]),
    defocus=float(about["defocus_angstrom"]),
    initial_scan_positions=positions - positions.min(0),
    device="cpu" if args.device == "cpu" else "gpu",
    verbose=False,
    **shape,
)
task.preprocess(
    force_com_rotation=0,
    force_com_transpose=False,
    force_com_shifts=[n // 2 for n in counts.shape[1:]],
    plot_center_of_mass=False,
    plot_rotation=False,
    plot_probe_overlaps=False,
    max_batch_size=args.batch,
)
step = (
    0.5 if args.slices == 1 else 0.1
)  # the default; slices that all take it overshoot after four iterations
seconds = []
for epoch in range(args.epochs):
    start = time.perf_counter()
    task.reconstruct(
        num_iter=1,
        reset=False,
        step_size=step,
        max_batch_size=args.batch,
        seed_random=epoch,
        progress_bar=False,
    )
    seconds.append(time.perf_counter() - start)
report(args, "py4DSTEM", seconds, task.error_iterations)
