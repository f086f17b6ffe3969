"""Seconds per epoch of pty-chi's LSQML on a far-field dataset in the native format."""

import time

from _peer import arguments, report, stand_in_for_torchvision, wavelength

args = arguments(
    __doc__, batch=100, flags={"--refine-positions": "settings of pty-chi's own position tests"}
)
stand_in_for_torchvision()

import h5py
import numpy as np
import ptychi.api as api
import torch
from ptychi.api.task import PtychographyTask
from ptychi.utils import get_suggested_object_size, orthogonalize_initial_probe, rescale_probe

torch.set_num_threads(args.threads)


def focused_probe(n, pixel, voltage_kv, semiangle_mrad, defocus):
    """Probe of a round aperture, centre at [n//2, n//2]; lengths in Å, defocus > 0 is underfocus (Kirkland 2010, ch. 5)."""
    length = wavelength(voltage_kv)
    k = np.fft.fftfreq(n, pixel)
    k2 = k[:, None] ** 2 + k[None] ** 2
    wave = (np.sqrt(k2) * length <= semiangle_mrad * 1e-3) * np.exp(
        1j * np.pi * length * defocus * k2
    )
    return np.fft.fftshift(np.fft.ifft2(wave))


with h5py.File(args.dataset) as file:
    counts = file["counts"][()].astype(np.float32)
    pixel = float(file.attrs["pixel_angstrom"])
    positions = file["positions"][()] / pixel
    about = dict(file.attrs)
    if "probe_guess" in file:
        first_mode = file["probe_guess"][()]
    else:
        first_mode = focused_probe(
            counts.shape[-1],
            pixel,
            *(file.attrs[k] for k in ("voltage_kv", "semiangle_mrad", "defocus_angstrom")),
        )
positions -= (positions.max(0) + positions.min(0)) / 2

probe = torch.zeros((1, args.modes, *first_mode.shape), dtype=torch.complex64)
probe[0, 0] = torch.as_tensor(first_mode.astype(np.complex64))
probe = orthogonalize_initial_probe(probe)
probe = torch.as_tensor(rescale_probe(probe, torch.as_tensor(counts)))

options = api.LSQMLOptions()
options.object_options.pixel_size_m = pixel * 1e-10
if args.slices > 1:
    spacing = float(about["thickness_angstrom"]) / args.slices * 1e-10  # m
    options.object_options.slice_spacings_m = np.full(args.slices - 1, spacing)
    options.data_options.wavelength_m = wavelength(float(about["voltage_kv"])) * 1e-10
options.reconstructor_options.default_device = (
    api.Devices.CPU if args.device == "cpu" else api.Devices.GPU
)
options.reconstructor_options.batch_size = args.batch
options.reconstructor_options.num_epochs = args.epochs
options.reconstructor_options.random_seed = 0
if args.refine_positions:
    options.probe_position_options.optimizable = True
    options.probe_position_options.step_size = 0.1
    options.probe_position_options.correction_options.update_magnitude_limit = 2.0

size = get_suggested_object_size(positions, probe.shape[-2:], extra=100)
task = PtychographyTask(
    options,
    diffraction_data=counts,
    object_data=torch.ones((args.slices, *size), dtype=torch.complex64),
    probe_data=probe,
    probe_position_y_px=positions[:, 0].astype(np.float32),
    probe_position_x_px=positions[:, 1].astype(np.float32),
)
seconds = []
for _ in range(args.epochs):
    start = time.perf_counter()
    task.run(1)
    seconds.append(time.perf_counter() - start)
losses = task.reconstructor.loss_tracker.table["loss"].tolist()
report(args, "ptychi", seconds, losses[-args.epochs :])
