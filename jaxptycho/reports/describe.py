"""Contents of measurements and models as rows of text, as `jaxptycho inspect` prints them."""

import math

import numpy as np

from ..analysis.design import area_per_shot, design
from ..data import Dataset
from ..start.calibrate import Calibration
from ..start.calibration import bright_field_centre, bright_field_semiangle
from ..start.cautions import Caution, cautions
from ..start.descan import descan_rows


def describe_data(data: Dataset) -> dict[str, str]:
    """Shapes, doses and the instrument; `caution` lines name suspicious properties."""
    grid = data.grid
    doses = np.concatenate([data.dose(view) for view in range(data.n_views)])
    places = np.concatenate(data.positions)
    wavelength = f"{grid.wavelength:.5g} Å"
    mean = doses.mean()
    low = doses.min()
    high = doses.max()
    tilts = [] if data.tilts is None else np.rad2deg(data.tilts)
    guess = data.probe_guess
    steps = " × ".join(f"{1e3 * grid.wavelength * dk:.4g}" for dk in grid.dk)
    rows = {
        "patterns": f"{' + '.join(map(str, data.n_shots))} of {grid.shape[0]} × {grid.shape[1]} "
        "pixels",
        "beam": f"{grid.voltage_kv:g} kV, {wavelength}" if grid.voltage_kv else wavelength,
        "object pixel": f"{grid.pixel[0]:.5g} × {grid.pixel[1]:.5g} Å",
        "detector step": f"{steps} mrad",
        "scanned": " × ".join(f"{extent:.5g}" for extent in np.ptp(places, axis=0)) + " Å",
        **frame_row(data.frame),
        "dose per pattern": f"{mean:.5g} quanta ({low:.4g} to {high:.4g})",
        "masked pixels": "none" if data.mask is None else str(int((~data.mask).sum())),
        **({"tilts": ", ".join(f"{t:+.4g}" for t in tilts) + " °"} if len(tilts) else {}),
        "probe guess": "none" if guess is None else " × ".join(map(str, guess.shape)),
    }
    rows |= {name: shortened(value) for name, value in data.about.items()}
    if grid.voltage_kv:
        rows |= _optics_rows(data, float(mean))
    return rows | caution_rows(cautions(data))


def _optics_rows(data: Dataset, dose: float) -> dict[str, str]:
    """Rows of the bright-field disc, and of the resolution of such an experiment."""
    middle = ", ".join(f"{c:+.2f}" for c in bright_field_centre(data))
    disc = bright_field_semiangle(data)
    rows = {"bright field": "no disc"}
    if disc is not None:
        rows["bright field"] = (
            f"semiangle {1e3 * disc:.4g} mrad, centre ({middle}) pixels from the middle"
        )
    rows |= descan_rows(data)
    semiangle, defocus = (
        data.about.get(f"{name}") for name in ("semiangle_mrad", "defocus_angstrom")
    )
    if semiangle is None or defocus is None:
        return rows
    step = math.sqrt(area_per_shot(data.positions[0]))
    return rows | design(data.grid, 1e-3 * semiangle, defocus, step, dose).summary()


def describe_look(look: Calibration) -> dict[str, str]:
    """Measured quantities as value ± error ← source; warnings below."""
    rows = {name: str(value) for name, value in look.rows().items()}
    numbered = enumerate(look.warnings, 1)
    return rows | {f"warning {number}": warning for number, warning in numbered}


def caution_rows(found: list[Caution]) -> dict[str, str]:
    """Cautions as rows of a table."""
    return {f"caution {number}": str(caution) for number, caution in enumerate(found, 1)}


def frame_row(frame: tuple[float, float]) -> dict[str, str]:
    """Origin of the positions, if it differs from that of the file."""
    if not any(frame):
        return {}
    return {"positions counted from": "({:.12g}, {:.12g}) Å (y, x)".format(*frame)}


def shortened(value: object) -> str:
    """Text of a value in at most 100 characters."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 100 else text[:97] + "…"
