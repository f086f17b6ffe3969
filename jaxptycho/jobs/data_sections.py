"""Sections of a job that describe the measurement."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..data.orientation import SCAN_TRANSFORMS
from ..io.arrangement import POSITION_UNITS
from ..io.datasets import ORIGINS, READERS
from ..io.scan_layout import SCAN_ORDERS, require_map
from .schema import Counts, Pair, Section, in_unit, key, number_or_pair, one_of


def _invertible(matrix: list[list[float]]) -> list[list[float]]:
    require_map(matrix)
    return matrix


Corners = Annotated[list[Pair], Field(min_length=2, max_length=2)]
Map = Annotated[list[Pair], AfterValidator(_invertible)]
Window = Annotated[list[int], Field(min_length=2, max_length=4)]


class Data(Section):
    """Measurement, and properties that its file does not give."""

    file: str | None = key(
        "native HDF5, CXI or a camera's file, relative to this job; default: what a first step "
        "`simulate` writes",
        None,
        "scan.h5",
        role="input",
    )
    reader: one_of(READERS, "reader", references=True) | None = key(
        f"format of the file: {', '.join(READERS)}, or module:function beside the job, called "
        "with the path, what this section gives in place of the file, and data.options; default: "
        "by its contents",
        None,
        "mymodule:read_scan",
    )
    options: dict[str, Any] = key("keywords of a function named by data.reader", {})
    voltage_kv: in_unit("voltage_kv") | None = key(
        "acceleration voltage, if not in the file", None, 300.0
    )
    wavelength_angstrom: in_unit("wavelength_angstrom") | None = key(
        "wavelength of anything but electrons", None, 1.4
    )
    pixel_angstrom: number_or_pair("pixel_angstrom") | None = key(
        "pixel of the object, or (y, x), if not in the file", None, 0.3
    )
    dk_inverse_angstrom: number_or_pair("dk_inverse_angstrom") | None = key(
        "frequency step of the detector, or (y, x), instead of the pixel", None, 0.025
    )
    detector_step_mrad: number_or_pair("detector_step_mrad") | None = key(
        "angle between neighbouring pixels of the detector, instead of the pixel; default: that of "
        "the header, or measured from the disc of probe.semiangle_mrad",
        None,
        0.5,
    )
    dataset: str | None = key(
        "array of patterns in a file that holds several", None, "/entry/data/data"
    )
    frames: Counts | None = key(
        "first pattern that is read of a camera's file, and the one after the last; default all",
        None,
        [0, 4096],
    )
    frame_shape: Counts | None = key(
        "height and width of the patterns of a binary without a header", None, [256, 256]
    )
    dtype: str | None = key("type of the numbers of such a binary", None, "<u2")
    offset_bytes: int | None = key("bytes before the first pattern of a binary", None, 0, ge=0)
    gap_bytes: int | None = key("bytes between the patterns of a binary", None, 0, ge=0)
    ignore_header: bool = key(
        "take the values of this job where the header of a camera's file contradicts them, instead "
        "of refusing them",
        False,
    )
    position_unit: one_of(POSITION_UNITS, "unit of positions") = key(
        f"unit of the positions in the file: {', '.join(POSITION_UNITS)} (of the object)",
        "angstrom",
    )
    zero_frequency: Literal["middle", "corner"] = key(
        "place of the zero frequency in the patterns of the file", "middle"
    )
    counts_per_electron: float = key("counts of one electron, by which all are divided", 1.0, gt=0)
    dark_file: str | None = key(
        "image that is subtracted from every pattern of the file: HDF5, TIFF, NPY, or a camera's "
        "file, whose mean is taken",
        None,
        "dark.tif",
        role="input",
    )
    threshold: float | None = key(
        "counts of the file, less the dark image, below which a pixel reads zero", None, 5.0
    )
    mask_file: str | None = key(
        "image that is not zero where a pixel of the file counts, beside the file's own mask",
        None,
        "mask.npy",
        role="input",
    )
    vacuum_file: str | None = key(
        "pattern of the beam without a specimen on the same camera, less the same dark image: "
        'amplitude of the aperture of probe.start = "vacuum"',
        None,
        "vacuum.tif",
        role="input",
    )
    region_angstrom: Corners | None = key(
        "lowest and highest corner [[y, x], [y, x]] of the shots that are used, in the frame of "
        "the positions",
        None,
        [[0.0, 0.0], [50.0, 50.0]],
    )
    crop: Window | None = key(
        "pixels of the patterns that are used, [height, width] around the zero frequency, or "
        "[first row, first column, row after the last, column after the last]; steps and pixel "
        "above are those before; then bin, then pad",
        None,
        [192, 192],
    )
    bin: int = key(
        "factor by which pixels are summed; a sum counts where all of its pixels do", 1, ge=1
    )
    pad: Counts | None = key(
        "[height, width] of patterns with masked pixels around them, for a finer object",
        None,
        [256, 256],
    )
    bad_data: Literal["leave_out", "keep"] = key(
        "defective pixels and shots that do not belong to the scan: leave_out with a warning, or "
        "keep",
        "leave_out",
    )
    tilt_axis_deg: float | None = key(
        "direction of a series' tilt axis in the patterns: 0 along y (down), 90 along x (right), "
        "180 and 270 (or -90) the opposite senses; a positive tilt moves what is deeper along the "
        "beam by +x at 0, by -y at 90; patterns and positions are rotated by multiples of 90 "
        "degrees, results are in their frame; default: that of the file, or 0",
        None,
        90.0,
        ge=-360,
        le=360,
    )
    origin: one_of(ORIGINS, "origin") = key(
        "of a series' positions: axis: counted from the tilt axis; middle: the axis goes through "
        "the middle of each view's scan",
        "axis",
    )
    near_field: bool = key("a CXI file of in-line holograms", False)
    focus_to_sample_angstrom: float | None = key(
        "distance from the focus to the specimen, for holograms", None, 3.65e7, gt=0
    )
    half: Literal["all", "black", "white", "first", "second"] = key(
        "all; black or white fields of a checkerboard over the scan; first or second half of the "
        "quanta",
        "all",
    )
    fraction: float = key(
        "fraction of the shots that is used, spread evenly over the scan", 1.0, gt=0, le=1
    )
    dose_fraction: float = key("fraction of the quanta that is used, at random", 1.0, gt=0, le=1)
    hold_out: float = key(
        "fraction of the shots kept aside for the held-out loss; at least 8 of them if these are "
        "no more than a tenth; 0: none",
        0.02,
        ge=0,
        le=0.5,
    )


class Scan(Section):
    """Positions of the probe."""

    shape: Counts | None = key(
        "lines and shots in each line of a camera's file; default: as its header says",
        None,
        [64, 64],
    )
    step_angstrom: number_or_pair("step_angstrom") | None = key(
        "step of the scan, or (y, x); default: as the header of a camera's file says", None, 0.4
    )
    order: one_of(SCAN_ORDERS, "order of a scan") | None = key(
        "raster; serpentine: every second line backwards; file: as listed in it; default: file "
        "where it lists positions, else raster",
        None,
        "serpentine",
    )
    affine: Map | None = key(
        "matrix on (y, x) that corrects scale and skew of the scan, before all else",
        None,
        [[1.0, 0.02], [0.0, 0.99]],
    )
    transform: one_of(SCAN_TRANSFORMS, "scan transform") = key(
        f"orientation of the scan's axes on the detector: {', '.join(SCAN_TRANSFORMS)}; then it is "
        "rotated",
        "none",
    )
    rotation_deg: float = key(
        "rotation of the scan on the detector, counter-clockwise as seen with y down; any angle",
        0.0,
        ge=-360,
        le=360,
    )
    kind: Literal["free", "affine"] = key(
        "free: separate positions; affine: a linear map, found before the first epoch, a shift "
        "and a residual",
        "free",
    )
    error_angstrom: float | None = key(
        "error (rms along y and x) of positions that are wrong by pixels, each on its own: every "
        "shot is searched for within 3.7 times it, before the first epoch",
        None,
        1.0,
        gt=0,
    )
    search: Literal["auto", "off"] = key(
        "auto: where a refinement with automatic rates explains too little, every shot is searched "
        "for, and the refinement begins again if other positions fit better; off: never",
        "auto",
    )


class Start(Section):
    """An older result whose parts the first model takes over."""

    result: str | None = key(
        "result.h5 of another run on the same pixels", None, "other/result.h5", role="input"
    )
    parts: list[Literal["specimen", "probe", "positions"]] = key(
        "what is taken from it", ["specimen", "probe", "positions"], min_length=1
    )
