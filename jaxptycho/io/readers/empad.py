"""EMPAD of Cornell and Thermo Fisher: `.raw` of float32 frames with an `.xml` beside it.

A frame has 130 rows of 128 little-endian numbers; the last two rows are no pixels. The header
gives lengths in metres and angles in radians; `full_scan_field_of_view` covers the longer side of
the scan (versions 1.2 and later divide it by their `scale_factor`).
"""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...physics.grids import electron_wavelength
from .frames import record_frames
from .reading import Reading, Value, stated
from .source import Source

PIXELS = 128
ROWS = 130  # of a frame, of which the last two are no pixels
RECORD = np.dtype(("<f4", (ROWS, PIXELS)))
NAMED = re.compile(r"scan_x(\d+)_y(\d+)")
XML_BYTES = 2**20  # more than a header has
AGREE = 0.02  # relative difference of two calibrations that agree


def is_empad(source: Source) -> bool:
    """True for the `.xml` of an EMPAD, its raw file, or one that is named as these are."""
    if source.suffix == ".xml":
        return _mentions(source.path, b"raw_file")
    if source.suffix != ".raw":
        return False
    return _header_of(source.path) is not None or NAMED.fullmatch(source.path.stem) is not None


def read_empad(path: Path) -> Reading:
    """Reading of an `.xml` and its raw file, or of a raw file named scan_x…_y… without one."""
    xml = path if path.suffix.lower() == ".xml" else _header_of(path)
    entries = {} if xml is None else read_entries(xml)
    raw = path if path.suffix.lower() == ".raw" else path.with_name(entries["raw_file"])
    if not raw.is_file():
        raise FileNotFoundError(f"{raw}, which {path.name} names, is not there; put it beside it")
    count, rest = divmod(raw.stat().st_size, RECORD.itemsize)
    fault = f"ends after {rest} of the {RECORD.itemsize} bytes of frame {count}" if rest else None
    frames = record_frames(
        raw, RECORD, count, 0, (PIXELS, PIXELS), lambda whole: whole[:, :PIXELS], np.float32
    )
    values = _quantities(entries)
    shape = _shape_of(entries, raw)
    if shape is not None:
        values |= {"scan_shape": shape} | _step(entries, shape.value)
        if fault is None and count != np.prod(shape.value):
            fault = f"holds {count} frames, and its header announces a scan of {shape.value}"
    return Reading(path, "EMPAD", frames, values, notes=_contradictions(entries), fault=fault)


def read_entries(path: Path) -> dict[str, str]:
    """Texts of an `.xml` by name, with the parents of those that occur several times."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(
            f"{path} is no complete XML ({error}); where it is truncated, copy it again"
        ) from None
    entries: dict[str, str] = {}
    _collect(root, "", entries)
    named = root.find(".//raw_file")
    if named is None or not named.get("filename"):
        raise ValueError(f"{path} names no raw_file; the header of an EMPAD scan is required")
    return entries | {"raw_file": str(named.get("filename")).replace("\\", "/").rpartition("/")[2]}


def _collect(element: ElementTree.Element, above: str, entries: dict[str, str]) -> None:
    for child in element:
        name = f"{above}{child.tag}"
        entries[name] = (child.text or "").strip()
        _collect(child, f"{name}/", entries)


def _header_of(raw: Path) -> Path | None:
    """The `.xml` beside a raw file that names it."""
    for xml in sorted(raw.parent.glob("*.xml")):
        if _mentions(xml, raw.name.encode()):
            return xml
    return None


def _mentions(xml: Path, text: bytes) -> bool:
    """True if a text occurs in the beginning of a file."""
    with open(xml, "rb") as file:
        return text in file.read(XML_BYTES)


def _quantities(entries: dict[str, str]) -> dict[str, Value]:
    def first(*names: str) -> tuple[float | None, str]:
        found = next(
            (f"iom_measurements/{n}" for n in names if f"iom_measurements/{n}" in entries), ""
        )
        return _number(entries.get(found, "")), found.rpartition("/")[2]

    voltage, of_voltage = first("source.get_voltage", "high_voltage")
    rotation, of_rotation = first("column.get_scanrotation", "scan_rotation")
    pixel, of_pixel = first("calibrated_pixelsize")
    angle, of_angle = first("calibrated_diffraction_angle")
    exposure = _number(entries.get("exposure_time", ""))
    values = stated(
        voltage_kv=(None if voltage is None else voltage / 1e3, of_voltage),
        scan_rotation_deg=(None if rotation is None else np.rad2deg(rotation), of_rotation),
        exposure_s=(None if exposure is None else exposure / 1e3, "exposure_time"),
        camera_length_m=first("optics.get_cameralength", "nominal_camera_length"),
        dk_inverse_angstrom=(None if pixel is None else pixel * 1e8, of_pixel),
    )
    if "dk_inverse_angstrom" not in values and angle is not None:
        values |= stated(detector_step_mrad=(angle * 1e3, of_angle))
    return values


def _shape_of(entries: dict[str, str], raw: Path) -> Value | None:
    if "pix_x" in entries and "pix_y" in entries:
        return Value((int(entries["pix_y"]), int(entries["pix_x"])), "header", "pix_y, pix_x")
    if named := NAMED.search(raw.stem):
        return Value((int(named[2]), int(named[1])), "header", f"name of {raw.name}")
    return None


def _step(entries: dict[str, str], shape: tuple[int, int]) -> dict[str, Value]:
    """Step of the scan, from its field of view."""
    iom = "iom_measurements/"
    if f"{iom}full_scan_field_of_view/x" in entries:
        source = f"{iom}full_scan_field_of_view"
        field = _number(entries[f"{source}/x"])
        scale = _number(entries.get(f"{source}/scale_factor", "1")) or 1.0
    else:
        source = f"{iom}optics.get_full_scan_field_of_view"
        field = _number(entries.get(source, ""))
        scale = 1.0
    step = None if field is None else field / scale / max(shape) * 1e10
    return stated(step_angstrom=(step, source.removeprefix(iom)))


def _contradictions(entries: dict[str, str]) -> tuple[str, ...]:
    """Note on two calibrations of the detector that differ."""
    names = ("source.get_voltage", "calibrated_pixelsize", "calibrated_diffraction_angle")
    found = [_number(entries.get(f"iom_measurements/{name}", "")) for name in names]
    if any(number is None for number in found):
        return ()
    voltage, pixel, angle = (float(number or 0) for number in found)
    by_pixel = 1e3 * electron_wavelength(voltage / 1e3) * pixel * 1e8
    if abs(by_pixel / (1e3 * angle) - 1) < AGREE:
        return ()
    return (
        f"calibrated_pixelsize gives {by_pixel:.4g} mrad a pixel of the detector, and "
        f"calibrated_diffraction_angle {1e3 * angle:.4g} mrad; the former is used",
    )


def _number(text: str) -> float | None:
    """Number of an entry, the first of a list."""
    try:
        value = ast.literal_eval(text)
        return float(value[0] if isinstance(value, list) else value)
    except (ValueError, SyntaxError, TypeError, IndexError):
        return None
