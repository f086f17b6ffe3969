"""The exact ambiguity of a weak phase: a rotation by 180° with the opposite defocus."""

from dataclasses import replace

import numpy as np

from ..data.orientation import SCAN_TRANSFORMS, nearest_transform
from .measured import Measured
from .optics_table import DefocusCurve, MeasuredOptics

CERTAIN = 4.0  # standard errors of the contrast of mass
PAIR = "a rotation by 180°"  # begins the warning of the ambiguity
FOLDS = {
    "astigmatism_angle_deg": 2,
    "coma_angle_deg": 1,
    "threefold_astigmatism_angle_deg": 3,
}
SIGNED = ("defocus_angstrom", "spherical_aberration_angstrom")


def settled(optics: MeasuredOptics, contrast: Measured) -> MeasuredOptics:
    """Optics of the sign that mass has in the dark field, as long as `contrast` determines it.

    Where the skewness of the phase says otherwise, both are reported.
    """
    if abs(contrast.value) < CERTAIN * contrast.error:
        return optics
    right = contrast.value > 0
    if not optics.ambiguous:
        return optics if right else _doubtful(optics, contrast)
    chosen = optics if right else conjugate_optics(optics)
    others = optics.alternatives[1:]
    warnings = tuple(text for text in optics.warnings if not text.startswith(PAIR))
    return replace(chosen, alternatives=others, ambiguous=bool(others), warnings=warnings)


def conjugate_optics(optics: MeasuredOptics) -> MeasuredOptics:
    """The same fit with the phase, the defocus and all other aberrations of the opposite sign."""
    transform, rotation = nearest_transform(-optics.matrix)
    aberrations = {name: -value for name, value in optics.aberrations.items()}
    rows = {name: _opposite(name, row) for name, row in optics.rows().items()}
    turned = rows["rotation_deg"]
    source = turned.source.partition("; after")[0]
    rows["rotation_deg"] = replace(turned, source=f"{source}; after {transform}")
    curve = _opposite_curve(optics.curve)
    return replace(
        optics,
        transform=transform,
        rotation=rotation,
        aberrations=aberrations,
        curve=curve,
        _rows=rows,
    )


def _opposite_curve(curve: DefocusCurve) -> DefocusCurve:
    """Curves of the transforms rotated by 180°, over the opposite defocus."""
    names = {name: nearest_transform(-np.array(m, float))[0] for name, m in SCAN_TRANSFORMS.items()}
    explained = {names[name]: values[::-1] for name, values in curve.explained.items()}
    return DefocusCurve(-curve.defocus[::-1], explained)


def _opposite(name: str, row: Measured) -> Measured:
    if name in SIGNED:
        return replace(row, value=-row.value)
    if name in FOLDS:  # −cos mφ = cos m(φ + π/m)
        period = 360.0 / FOLDS[name]
        return replace(row, value=(row.value + period) % period - period / 2)
    return row


def _doubtful(optics: MeasuredOptics, contrast: Measured) -> MeasuredOptics:
    text = (
        f"{PAIR} with the opposite defocus gives the same patterns: the skewness of the phase "
        f"({optics.skewness.amount}) and the dark field ({contrast.amount}) contradict each other; "
        "give the sign of the defocus, probe.defocus_angstrom"
    )
    return replace(optics, ambiguous=True, warnings=(*optics.warnings, text))
