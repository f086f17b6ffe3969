"""Figures of the run of one scan."""

from collections.abc import Sequence
from pathlib import Path

from ..analysis.pictures import picture, probe_modes
from ..data import Dataset
from ..model import Model, probe_positions
from .plots import (
    draw_image,
    draw_losses,
    draw_object,
    draw_patterns,
    draw_positions,
    draw_probe,
    draw_slices,
    sample_patterns,
    save,
)
from .summary import draw_summary


def write_figures(
    folder: Path,
    model: Model,
    first: Model,
    data: Dataset,
    history: Sequence,
    band_pass: Sequence[float] | None = None,
) -> None:
    """Write all figures of a run as PNG files in `folder`.

    `first` is the model before, `band_pass` the shortest and longest period [Å] of a filtered one.
    """
    shown = picture(model)
    modes = probe_modes(model)
    patterns = sample_patterns(model, data)
    figures = {
        "summary": draw_summary(model, data, history, shown, modes, patterns),
        "object": draw_object(shown),
        "probe": draw_probe(modes, model),
        "positions": draw_positions(
            probe_positions(first) + model.frame,
            probe_positions(model) + model.frame,
            model.grid.pixel,
        ),
        "patterns": draw_patterns(patterns),
    }
    if len(shown.phase) > 1:
        figures["slices"] = draw_slices(shown)
    if band_pass is not None:
        band = (float(band_pass[0]), float(band_pass[1]))
        filtered = picture(model, band).phase.sum(0)
        figures["band_pass"] = draw_image(
            filtered, shown.pixel, f"Phase, {band[0]:g}–{band[1]:g} Å", "rad"
        )
    if history:
        figures["loss"] = draw_losses(history)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")
