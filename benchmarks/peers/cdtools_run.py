"""Seconds per epoch of CDTools' FancyPtycho with Adam on the PETRA III near-field dataset (CXI)."""

import time

from _peer import arguments, report

args = arguments(__doc__, batch=10)

import torch
from cdtools.datasets import Ptycho2DDataset
from cdtools.models import FancyPtycho
from cdtools.reconstructors import AdamReconstructor

if args.slices != 1:
    raise SystemExit("this script measures single-slice reconstructions only")
torch.set_num_threads(args.threads)
torch.manual_seed(0)

dataset = Ptycho2DDataset.from_cxi(args.dataset)
model = FancyPtycho.from_dataset(
    dataset,
    n_modes=args.modes,
    near_field=True,
    propagation_distance=3.65e-3,  # focus to specimen [m]; the detector's distance stands in the file
)
reconstructor = AdamReconstructor(model, dataset)
seconds, losses = [], []
start = time.perf_counter()
for loss in reconstructor.optimize(args.epochs, lr=0.04, batch_size=args.batch, thread=False):
    seconds.append(time.perf_counter() - start)
    losses.append(float(loss))
    start = time.perf_counter()
report(args, "cdtools-py", seconds, losses)
