"""`jaxptycho demo`: a bilayer simulated, reconstructed as any measurement is, and compared with the
truth.

The simulation shares neither grid nor slices with the reconstruction: atoms vibrate, the pixel is
half as large, and a slice is 2 Å thick.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..analysis.pictures import limits
from ..analysis.resolution import fixed
from ..analysis.truth import Agreement, compare_phase, phases
from ..figures.plots import save, show
from ..io.native import read_truth
from ..jobs.reading import read_job
from ..jobs.runner import start
from ..model import Model
from ..reports.evaluate import phase_agreement, truth_correlation
from ..runs.folder import refuse_existing
from ..runs.progress import ProgressBar

JOB = """# Job of `jaxptycho demo`. Change it and run it again: jaxptycho run bilayer.toml --out
# again, with another name of the file that it simulates, or without that step and with `file` in
# [data].

[data]
hold_out = 0.05

[probe]
start = "optics"

[specimen]
kind = "phase"
slices = 4

[[step]]
kind = "simulate"
file = "bilayer.h5"
slab_angstrom = 11.0                # half of the whole: one slab for each layer

[step.specimen]
phantom = "twisted_bilayer"
options = {{width = 36.0, twist_deg = 11.5, spacing = 15.0}}
vibration_angstrom = 0.08

[step.microscope]
voltage_kv = 80.0
semiangle_mrad = 30.0
defocus_angstrom = 60.0

[step.scan]
shape = [{positions}, {positions}]
step_angstrom = 0.7
dose_per_square_angstrom = 1e5

[step.detector]
pixels = 64
pixel_angstrom = 0.2

[step.sampling]
slice_angstrom = 2.0
configurations = 4

[[step]]
kind = "refine"
epochs = {epochs}
batch = 32

[step.rates]
specimen = {{rate = 1e-2, schedule = "cosine"}}
probe = {{rate = 5e-3, schedule = "cosine"}}
"""


def run_demo(out: Path, positions: int = 16, epochs: int = 40) -> dict[str, float]:
    """Simulate a scan of `positions`², reconstruct it in `out`; print and return its quality.

    `correlation_1` and `_2` compare each layer with its truth, `crosstalk_1` and `_2` with that of
    the other, `resolution_angstrom` is the period at which the ring correlation with the truth
    falls to 0.5.
    """
    refuse_existing(out)
    out.mkdir(parents=True)
    began = time.monotonic()
    job = JOB.format(positions=positions, epochs=epochs)
    (out / "bilayer.toml").write_text(job, encoding="utf-8")
    print(f"simulating {positions**2} patterns of two layers 15 Å apart, then reconstructing them")
    outcome = start(read_job(out / "bilayer.toml"), out / "run", _BarAlone())
    if outcome.model is None:
        raise ValueError(f"the demo was stopped by {outcome.why}; run it again with another --out")
    model = outcome.model
    print(outcome.verdict)
    truth = read_truth(out / "bilayer.h5")
    own, crossed = compare_layers(model, truth)
    curve = truth_correlation(model, phase_agreement(model, truth))
    figures = {f"correlation_{n + 1}": agreement.correlation for n, agreement in enumerate(own)}
    figures |= {f"crosstalk_{n + 1}": agreement.correlation for n, agreement in enumerate(crossed)}
    figures |= {"resolution_angstrom": curve.resolution(fixed(0.5)), "seconds": since(began)}
    save(draw_layers(own, model.grid.pixel), out / "layers.png")
    for n in (1, 2):
        print(
            f"layer {n}: correlation with its truth {figures[f'correlation_{n}']:.3f}, with that "
            f"of the other {figures[f'crosstalk_{n}']:.3f}"
        )
    print(
        f"resolution {figures['resolution_angstrom']:.2f} Å (ring correlation with the truth at "
        "0.5)"
    )
    print(
        f"{figures['seconds']:.0f} s in all; look at {out / 'layers.png'} and "
        f"{out / 'run' / 'figures'}"
    )
    return figures


class _BarAlone(ProgressBar):
    """Progress bar without the details that a step reports in a run of its job."""

    def say(self, text: str) -> None:
        """Print nothing."""


def since(began: float) -> float:
    """Seconds since `began`."""
    return time.monotonic() - began


def compare_layers(model: Model, truth: dict[str, Any]) -> tuple[list[Agreement], list[Agreement]]:
    """Correlation of the upper and lower half of the slices with each of the layers."""
    stack = phases(model)
    halves = stack.reshape(2, -1, *stack.shape[1:]).sum(1)
    layers = model.grid.sigma * truth["potential"]
    pixel = truth["pixel_angstrom"]
    corner = truth["origin_angstrom"][1:]

    def compared(half: int, layer: int) -> Agreement:
        return compare_phase(halves[half], model, layers[layer], pixel, truth_origin=corner)

    return [compared(n, n) for n in (0, 1)], [compared(n, 1 - n) for n in (0, 1)]


def draw_layers(layers: list[Agreement], pixel: Any) -> Figure:
    """Layer by layer, the reconstruction beside the truth."""
    figure = Figure((8, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for n, (row, layer) in enumerate(zip(axes, layers, strict=True)):
        between = limits(layer.truth)
        for ax, image, what in zip(
            row, (layer.truth, layer.phase), ("truth", "reconstructed"), strict=True
        ):
            drawn = show(ax, np.asarray(image), pixel, f"Layer {n + 1}, {what}", None, between)
        figure.colorbar(drawn, ax=list(row), label="phase (rad)", shrink=0.8)
    return figure
