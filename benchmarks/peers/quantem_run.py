"""Seconds per epoch of quantem's ptychography with automatic differentiation on a raster scan in the native format."""

import time

from _peer import arguments, report

args = arguments(__doc__, batch=128)

import h5py
import numpy as np
import torch
from quantem.diffractive_imaging.dataset_models import PtychographyDatasetRaster
from quantem.diffractive_imaging.ptychography_lite import PtychoLite

torch.set_num_threads(args.threads)
with h5py.File(args.dataset) as file:
    about = {key: file.attrs[key] for key in file.attrs}
    counts = file["counts"][()].astype(np.float32)
scan = tuple(int(n) for n in about["scan_shape"])
step, dk = float(about["scan_step_angstrom"]), float(about["dk_inverse_angstrom"])
padding = tuple(n // 2 for n in counts.shape[1:])


class Timed(PtychoLite):
    """Notes when every iteration ends, and its loss."""

    def step_schedulers(self, loss=None):
        super().step_schedulers(loss)
        ends.append(time.perf_counter())
        losses.append(loss)


data = PtychographyDatasetRaster.from_array(
    counts.reshape(*scan, *counts.shape[1:]),
    sampling=(step, step, dk, dk),
    units=["A", "A", "A^-1", "A^-1"],
    verbose=False,
)
data.preprocess(
    com_fit_function="no_shift",
    force_com_rotation=0,
    force_com_transpose=False,
    obj_padding_px=padding,
    plot_rotation=False,
    plot_com=False,
)
task = Timed.from_dataset(
    data,
    num_slices=args.slices,
    slice_thicknesses=float(about["thickness_angstrom"]) / args.slices if args.slices > 1 else None,
    num_probes=args.modes,
    energy=float(about["voltage_kv"]) * 1e3,
    defocus=float(about["defocus_angstrom"]),
    semiangle_cutoff=float(about["semiangle_mrad"]),
    obj_padding_px=padding,
    device=args.device,
    verbose=False,
    rng=0,
)
losses, ends = [], [time.perf_counter()]
task.reconstruct(num_iters=args.epochs, batch_size=args.batch, verbose=False)
report(args, "quantem", np.diff(ends).tolist(), losses)
