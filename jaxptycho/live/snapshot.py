"""Snapshot of a series: what is known of it at one moment, for a page, a terminal or a folder."""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic_write import atomic_path
from .pictures import LiveImage

ROBUST = (0.5, 99.5)  # percentiles at the ends of the grey scale
COLOURS = {"mean_pattern": "inferno"}


@dataclass(frozen=True)
class Snapshot:
    """Numbers of a series, and the pictures that are new since the last one."""

    series: str
    status: dict[str, Any]
    optics: dict[str, str] = field(default_factory=dict)  # value ± error, by name
    pictures: dict[str, LiveImage] = field(default_factory=dict)
    disc: tuple[float, float, float] | None = None  # (y, x, radius) in pixels of the mean pattern

    def message(self) -> dict[str, Any]:
        """The snapshot for a browser, its pictures as PNG."""
        pictures = {
            name: {
                "png": base64.b64encode(png_of(name, picture)).decode(),
                "title": picture.title,
                "range": [*map(_plain, grey_range(picture.image))],
                "unit": picture.unit,
            }
            for name, picture in self.pictures.items()
        }
        return {
            "series": self.series,
            "status": {name: _plain(value) for name, value in self.status.items()},
            "optics": self.optics,
            "pictures": pictures,
            "disc": self.disc,
        }

    def line(self) -> str:
        """One line for a terminal."""
        s = self.status
        return (
            f"{self.series}: {s['arrived']} of {s['frames']} frames, {s['rate']:.0f}/s, "
            f"{s['lost']} lost, {s['late']} late, {s['doubled']} double, queue {s['queue']}"
        )


def save_pictures(pictures: dict[str, LiveImage], folder: Path) -> None:
    """Write pictures as PNG, each completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        with atomic_path(folder / f"{name}.png", overwrite=True) as draft:
            draft.write_bytes(png_of(name, picture))


def png_of(name: str, picture: LiveImage) -> bytes:
    """PNG of a picture on its grey scale, mean patterns by their square root."""
    from matplotlib.image import imsave

    image = picture.image
    if name == "mean_pattern":
        image = np.sqrt(np.maximum(image, 0))
    low, high = grey_range(image)
    content = io.BytesIO()
    shown = np.where(np.isfinite(image), image, low)
    imsave(content, shown, vmin=low, vmax=high, cmap=COLOURS.get(name, "gray"), format="png")
    return content.getvalue()


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """Values at the ends of the grey scale, robust against outliers."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, ROBUST).tolist()
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _plain(value: Any) -> Any:
    """Number for JSON, None for one that is not finite."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
