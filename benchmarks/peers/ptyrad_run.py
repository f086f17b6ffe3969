"""Seconds per epoch of PtyRAD's multislice reconstruction of a raster scan in the native format."""

from _peer import arguments, report, stand_in_for_ptyrad_figures, stand_in_for_torchvision

args = arguments(
    __doc__,
    slices=4,
    batch=32,
    flags={
        "--compile": "torch.compile, as PtyRAD offers it",
        "--fixed-positions": "positions stay as they are",
    },
)
stand_in_for_torchvision()
stand_in_for_ptyrad_figures()

import h5py
import torch
from ptyrad.params.ptyrad_params import PtyRADParams
from ptyrad.solver import PtyRADSolver

torch.set_num_threads(args.threads)
with h5py.File(args.dataset) as file:
    about = {key: file.attrs[key] for key in file.attrs}
    shots, pixels = file["counts"].shape[:2]
rows, columns = (int(n) for n in about["scan_shape"])

parameters = {
    "init_params": {
        "random_seed": 0,
        "probe_kv": float(about["voltage_kv"]),
        "probe_conv_angle": float(about["semiangle_mrad"]),
        "probe_aberrations": {"C10": -float(about["defocus_angstrom"])},
        "probe_pmode_max": args.modes,
        "meas_Npix": pixels,
        "meas_calibration": {"mode": "dk", "value": float(about["dk_inverse_angstrom"])},
        "meas_params": {"path": args.dataset, "key": "counts"},
        "pos_N_scans": shots,
        "pos_N_scan_slow": rows,
        "pos_N_scan_fast": columns,
        "pos_scan_step_size": float(about["scan_step_angstrom"]),
        "obj_Nlayer": args.slices,
        "obj_slice_thickness": float(about["thickness_angstrom"]) / args.slices,
    },
    "loss_params": {
        "loss_single": {"state": True, "weight": 1.0, "dp_pow": 0.5},
        "loss_sparse": {"state": False},
    },
    "constraint_params": {  # those of the package's `standard` template
        "ortho_pmode": {"start_iter": 1},
        "fix_probe_int": {"start_iter": 1},
        "obj_rblur": {"start_iter": None},
        "obj_zblur": {"start_iter": 1, "obj_type": "both", "kernel_size": 5, "std": 1},
        "obja_thresh": {"start_iter": 1, "relax": 0, "thresh": [0.96, 1.04]},
        "objp_postiv": {"start_iter": None},
    },
    "recon_params": {
        "NITER": args.epochs,
        "BATCH_SIZE": {"size": args.batch, "grad_accumulation": 1},
        "SAVE_ITERS": None,
        "compiler_configs": {"enable": args.compile},
    },
}
if args.fixed_positions:
    parameters["model_params"] = {
        "update_params": {"probe_pos_shifts": {"start_iter": None, "lr": 0.0}}
    }
solver = PtyRADSolver(PtyRADParams(**parameters).model_dump(), device=args.device, seed=0)
solver.run()
model = solver.reconstruct_results
report(args, "ptyrad", list(model.iter_times), [loss for _, loss in model.loss_iters])
