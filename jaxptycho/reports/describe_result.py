"""Contents of a result as rows of text, in the words of a microscopist."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..analysis.pictures import ROBUST, picture, probe_modes
from ..model import Model
from ..parts.indexed import PerShot, axis_size
from ..physics.types import Numbers
from .describe import frame_row, shortened

MODES = 6  # whose powers are named
# attributes that other rows contain
SHOWN = {"job", "frame_angstrom", "pixel_angstrom", "slice_angstrom", "voltage_kv", "default"}
SHOWN |= {"wavelength_angstrom"}


def describe_result(
    model: Model, history: Mapping[str, Numbers], about: Mapping[str, Any]
) -> dict[str, str]:
    """Specimen, beam, probe and scan of a result, its epochs, and what it was made by.

    `about` are the attributes of its file.
    """
    further = {name: shortened(value) for name, value in about.items() if name not in SHOWN}
    return describe_model(model) | _progress(history) | further


def describe_model(model: Model) -> dict[str, str]:
    """Specimen, beam, probe, scan and detector of a model."""
    grid = model.grid
    beam = f"{grid.wavelength:.5g} Å"
    return {
        **_specimen(model),
        "beam": f"{grid.voltage_kv:g} kV, {beam}" if grid.voltage_kv else beam,
        "probe": _probe(model),
        **model.probe.summary(),
        "scan": f"{axis_size(model.scan, PerShot)} positions, {type(model.scan).__name__}",
        **frame_row(model.frame),
        "propagation": _nested(model.propagator),
        "detector": f"{grid.shape[0]} × {grid.shape[1]} pixels, {_nested(model.detector)}",
        "numbers": f"{sum(leaf.size for leaf in _arrays(model))} in {len(_arrays(model))} arrays",
    }


def _specimen(model: Model) -> dict[str, str]:
    """Size and values of a specimen on the scanned area, as far as it has a picture."""
    specimen = model.specimen
    kind = type(specimen).__name__
    if specimen.rotates:
        return {"specimen": kind, **specimen.summary()}
    try:
        shown = picture(model)
    except ValueError as error:
        return {"specimen": kind, **specimen.summary(), "not shown": str(error)}
    count, *plane = shown.phase.shape
    depth = shown.faces[-1]
    slices = f"{count} slices, {depth:.4g} Å deep" if count > 1 else "one slice"
    size = " × ".join(f"{n * p:.4g}" for n, p in zip(plane, shown.pixel, strict=True))
    rows = {
        "specimen": f"{slices} ({kind})",
        "scanned area": f"{size} Å in {plane[0]} × {plane[1]} pixels of {shown.pixel[0]:.4g} × "
        f"{shown.pixel[1]:.4g} Å",
        "phase": f"{_range(shown.phase.sum(0))} rad" + (", of all slices" if count > 1 else ""),
    }
    if shown.amplitude is not None:
        rows["amplitude"] = _range(shown.amplitude)
    return rows | specimen.summary()


def _range(values: np.ndarray) -> str:
    low, high = np.nanpercentile(values, ROBUST)
    return f"{low:.3g} to {high:.3g}"


def _probe(model: Model) -> str:
    powers = probe_modes(model).powers
    shares = ", ".join(f"{100 * power:.3g} %" for power in powers[:MODES])
    modes = f"{len(powers)} modes ({shares}{', …' if len(powers) > MODES else ''})"
    dose = float(model.probe.mean_dose(model.grid))
    held = "one mode" if len(powers) == 1 else modes
    return f"{held}, {dose:.4g} quanta per pattern ({type(model.probe).__name__})"


def _progress(history: Mapping[str, Numbers]) -> dict[str, str]:
    """Epochs, and the losses at their end."""
    losses = np.asarray(history.get("loss", ()))
    if not losses.size:
        return {}
    held = np.asarray(history.get("held_out", ()), float)
    known = held[np.isfinite(held)]
    least = f", least held-out loss {known.min():.4g}" if known.size else ""
    return {"epochs": str(losses.size), "loss": f"{losses[-1]:.4g} at the end{least}"}


def _nested(part: Any) -> str:
    """Names of a part and of those that it contains."""
    inner = (getattr(part, name, None) for name in ("detector", "propagator"))
    return ", ".join([type(part).__name__, *(_nested(one) for one in inner if one is not None)])


def _arrays(model: Model) -> list[Any]:
    return jax.tree.leaves(eqx.filter(model, eqx.is_array))
