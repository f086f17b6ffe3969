"""Cautions about a measurement: what the patterns and the scan contradict, and the key to change.

Each check looks at a spread sample of the patterns, reports its finding and its consequence, and
gives no caution where sound data could look the same.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from ..analysis.design import LEAST_STEP, area_per_shot, defocused_radius, design
from ..analysis.electron_response import electron_response, exact_counts
from ..data import Dataset
from ..data.checks import of_view
from ..physics.grids import PHOTON_KEV_ANGSTROM
from .calibration import bright_field_semiangle
from .camera_cautions import of_beam_stop, of_gain, of_shifted_frames, of_wrapped_counts
from .caution import Caution, Measurement
from .count_statistics import are_amplitudes, ceiling, is_constant, pedestal
from .series_cautions import of_origin, of_repeated_views, of_tilts

SEMIANGLE = 1.18  # ratio of the measured to the given semiangle, or the inverse
FEWEST_COUNTS = 600  # counts of all patterns, of which fewer show no disc
MAX_OVERLAP_BELOW_PIXEL = 0.94  # of steps below a pixel
MAX_OVERLAP = 0.97
MAX_STEP = 1.0  # windows, for an unknown probe
LINE = 1e-3  # width of a line over its length
REPEATED = 0.05  # fraction of the shots
MIN_STEP = 0.05  # pixels, for an unknown probe
CORNER = 1.5  # times as many counts in the corners of the pattern as in its middle
PHOTONS_KEV = 25.0  # above which photons are rarely used, and electrons often


def cautions(data: Dataset, about: Mapping[str, Any] | None = None) -> list[Caution]:
    """Cautions about `data`; `about` replaces `data.about`, as a job does.

    Keys of `about` are those of the native format; with `slices` above 1 the specimen is
    reconstructed as a thick one.
    """
    said = {name: value for name, value in (about or {}).items() if value is not None}
    measured = Measurement(data, data.about | said)
    found = [caution for check in CHECKS for caution in check(measured)]
    return [*found, *_of_single_views(measured, {caution.key for caution in found})]


def _of_single_views(measured: Measurement, known: set[str]) -> Iterator[Caution]:
    """What distinguishes some views of a series, with the first of them."""
    data = measured.data
    for view in range(data.n_views) if data.n_views > 1 else ():
        of_one = Measurement(data.view(view), measured.about)
        for caution in (*of_centre(of_one), *of_positions(of_one)):
            if caution.key not in known:
                known.add(caution.key)
                yield Caution(caution.key, f"view {view}: {caution.text}")


def of_radiation(measured: Measurement) -> Iterator[Caution]:
    """Photons of an energy that electrons have."""
    energy = measured.about.get("source_energy_kev")
    if energy is not None and measured.data.grid.voltage_kv is None and energy >= PHOTONS_KEV:
        yield Caution(
            "data.voltage_kv",
            f"the source has an energy of {energy:.4g} keV and is read as photons of "
            f"{PHOTON_KEV_ANGSTROM / energy:.3g} Å; for electrons set data.voltage_kv = "
            f"{energy:.4g}",
        )


def of_centre(measured: Measurement) -> Iterator[Caution]:
    """Patterns whose zero frequency is in the corner."""
    axes = _shifted_axes(measured.data.mean_pattern())
    if axes == "both":
        yield Caution(
            "data.zero_frequency",
            "the patterns are brightest in their corners: is their zero frequency there? It is "
            'required in the middle; set data.zero_frequency = "corner", or fftshift the counts',
        )
    elif axes:
        yield Caution(
            "data.zero_frequency",
            f"the patterns are brightest at both ends of their {axes} axis: is their zero "
            f"frequency there? It is required in the middle; fftshift the counts along {axes}",
        )


def of_probe_guess(measured: Measurement) -> Iterator[Caution]:
    """A guess of the probe that is centred in the corner."""
    guess = measured.data.probe_guess
    if guess is None:
        return
    if _shifted_axes(np.sum(np.abs(np.atleast_3d(guess.T).T) ** 2, 0)) is not None:
        yield Caution(
            "probe.start",
            "the probe_guess is brightest at the edges of its window, where pixel [N//2, N//2] is "
            'required to be its centre; fftshift it, or set probe.start = "optics"',
        )


def of_mask(measured: Measurement) -> Iterator[Caution]:
    """A mask that hides what counts."""
    mask = measured.data.mask
    if mask is None or mask.mean() >= 0.5:
        return
    total = np.maximum(measured.data.sample.total, 0)
    hidden = total[~mask].sum() / max(total.sum(), 1e-30)
    if hidden > 0.5:
        yield Caution(
            "data.mask",
            f"the mask keeps {100 * mask.mean():.2g} % of the pixels and hides {100 * hidden:.3g} "
            "% of the counts; it is True where a pixel counts: invert it?",
        )


def of_semiangle(measured: Measurement) -> Iterator[Caution]:
    """A bright-field disc of another semiangle than the given one."""
    given = measured.about.get("semiangle_mrad")
    if given is None or not measured.is_far_field_of_electrons or any(of_centre(measured)):
        return
    if measured.data.mean_pattern().sum() * sum(measured.data.n_shots) < FEWEST_COUNTS:
        return
    radians = bright_field_semiangle(measured.data)
    cause = (
        "are the pixel (pixel_angstrom, dk_inverse_angstrom) and the beam (voltage_kv) right, is "
        "this a far field?"
    )
    if radians is None:
        yield Caution(
            "probe.semiangle_mrad",
            f"no bright-field disc is found, and semiangle_mrad = {given:g} is given; {cause}",
        )
        return
    disc = 1e3 * radians
    if 1 / SEMIANGLE < disc / given < SEMIANGLE:
        return
    if 0.5 < disc / given / 1e3 < 2:
        cause = "is it in radians?"
    yield Caution(
        "probe.semiangle_mrad",
        f"the bright-field disc measures {disc:.4g} mrad, and semiangle_mrad = {given:g} is "
        f"given; {cause}",
    )


def of_positions(measured: Measurement) -> Iterator[Caution]:
    """Steps of the scan that no probe of this size is moved by."""
    data = measured.data
    about = measured.about
    step = math.sqrt(area_per_shot(data.positions[0]))
    pixel = max(data.grid.pixel)
    if min(data.n_shots) < 4 or step <= LEAST_STEP:
        return
    semiangle = about.get("semiangle_mrad")
    defocus = about.get("defocus_angstrom")
    unit = "are the positions in Å? (see data.position_unit)"
    window = min(n * p for n, p in zip(data.grid.shape, data.grid.pixel, strict=True))
    if semiangle is None or defocus is None or not measured.is_far_field_of_electrons:
        if step > MAX_STEP * window:
            text = (
                f"neighbouring positions are {step:.3g} Å apart, farther than the window of "
                f"{window:.3g} Å"
            )
            yield Caution("data.position_unit", f"{text} is wide; {unit}")
        elif step < MIN_STEP * pixel:
            text = f"neighbouring positions are {step:.3g} Å apart, and a pixel is {pixel:.3g} Å"
            yield Caution("data.position_unit", f"{text}; {unit}")
        return
    radius = defocused_radius(data.grid.wavelength, 1e-3 * semiangle, defocus)
    overlap = 1 - step / (2 * radius)
    if 2 * radius > window:  # the defocus is out of proportion, see `of_design`
        return
    if overlap > MAX_OVERLAP or (step < pixel and overlap > MAX_OVERLAP_BELOW_PIXEL) or overlap < 0:
        how = f"overlap by {100 * overlap:.4g} %" if overlap > 0 else "do not overlap"
        text = (
            f"neighbouring probes {how}: they are {step:.3g} Å apart, and {2 * radius:.3g} Å wide"
        )
        cause = "" if overlap > 0 else ", or is the defocus too small (probe.defocus_angstrom)?"
        yield Caution("data.position_unit", f"{text}; {unit}{cause}")


def of_arrangement(measured: Measurement) -> Iterator[Caution]:
    """Positions that are all on a line, or all at one place."""
    for view, positions in enumerate(measured.data.positions):
        n = len(positions)
        if n < 4:
            continue
        where = of_view(view, measured.data.n_views)
        widths = np.linalg.svd(positions - positions.mean(0), compute_uv=False)
        distinct = len(np.unique(np.round(positions / LEAST_STEP), axis=0))
        if widths[1] <= LINE * widths[0]:
            what = "the same" if distinct == 1 else "on a line"
            yield Caution(
                "scan.shape",
                f"all {n} positions{where} are {what}, and show no area of the specimen; has one "
                "coordinate been lost?",
            )
        elif n - distinct > REPEATED * n:
            yield Caution(
                "data.frames",
                f"{n - distinct} of {n} shots{where} have the position of another shot: are there "
                "several scans in one file, or did the positions stop while the scan went on?",
            )


def of_counts(measured: Measurement) -> Iterator[Caution]:
    """Counts that are no single electrons."""
    found = electron_response(measured.data)
    exact = exact_counts(measured.data, found)
    if exact is not None:
        many = f"{exact:.3g}"
    elif found is not None and found.many_counts:
        many = f"{found.mean:.3g} ± {found.error:.1g}"
    else:
        many = ""
    if many:
        yield Caution(
            "data.counts_per_electron",
            f"one electron makes {many} counts; losses and the noise of weak signals expect "
            "electrons: divide the counts by this number",
        )
    elif np.median(measured.data.dose()) < 2 and measured.data.kinds[0].kind == "f":
        yield Caution(
            "data.counts_per_electron",
            f"a pattern holds {np.median(measured.data.dose()):.3g} counts in all: are the "
            "patterns normalised? Losses expect electrons; multiply by the electrons of a pattern",
        )


def of_numbers(measured: Measurement) -> Iterator[Caution]:
    """Numbers that end at a ceiling, begin at a pedestal, or are amplitudes."""
    noise = measured.noise
    end = ceiling(noise)
    if end is not None:
        yield Caution(
            "data.mask",
            f"{end.counts} counts in {end.pixels} pixels of {len(noise.values)} patterns are at "
            f"{end.value:g}, where the camera or the type of the file ends: what is brighter is "
            "lost. Mask these pixels, or use a file with more bits",
        )
    elif is_constant(noise):
        yield Caution(
            "data.file",
            "most illuminated pixels have the same number in all patterns, which do not even show "
            "the noise of counts: have they been averaged, or cut off at a threshold?",
        )
    elif are_amplitudes(noise):
        yield Caution(
            "data.file",
            "the numbers are roots of counts, or their noise falls with the intensity as that of "
            "amplitudes and logarithms does; counts are required: square or exponentiate them",
        )
    offset = pedestal(noise)
    if offset is not None:
        yield Caution(
            "data.dark_file",
            f"every pixel has about {offset:.4g} counts that are no electrons: they have hardly "
            "any noise; subtract a dark image",
        )


def of_design(measured: Measurement) -> Iterator[Caution]:
    """Sampling that the optics do not fit."""
    data = measured.data
    about = measured.about
    if not measured.is_far_field_of_electrons or not {"semiangle_mrad", "defocus_angstrom"} <= set(
        about
    ):
        return
    step = math.sqrt(area_per_shot(data.positions[0]))
    thickness = about.get("thickness_angstrom") if about.get("slices", 1) == 1 else None
    found = design(
        data.grid,
        1e-3 * about["semiangle_mrad"],
        about["defocus_angstrom"],
        step,
        thickness=thickness,
    )
    keys = {"the probe": "probe.defocus_angstrom", "the specimen": "specimen.slices"}
    for text in found.warnings:
        if not text.startswith("neighbouring"):
            yield Caution(keys.get(text[: text.index(" ", 4)], "data.pixel_angstrom"), text)


CHECKS: tuple[Callable[[Measurement], Iterator[Caution]], ...] = (
    of_radiation,
    of_centre,
    of_probe_guess,
    of_mask,
    of_semiangle,
    of_positions,
    of_arrangement,
    of_tilts,
    of_origin,
    of_repeated_views,
    of_counts,
    of_numbers,
    of_wrapped_counts,
    of_gain,
    of_beam_stop,
    of_shifted_frames,
    of_design,
)


def _shifted_axes(image: Float[np.ndarray, "y x"]) -> str | None:
    """The axes ("y", "x" or "both") at whose ends an image is brighter than in its middle.

    At both ends, as a disc at one of them is only far off the middle.
    """
    ny, nx = image.shape
    y, x = (np.abs(np.arange(n) - n // 2) < n / 4 for n in (ny, nx))
    ends_y = (~y & (np.arange(ny) < ny // 2), ~y & (np.arange(ny) >= ny // 2))
    ends_x = (~x & (np.arange(nx) < nx // 2), ~x & (np.arange(nx) >= nx // 2))

    def darkest(rows: tuple, columns: tuple) -> float:
        return float(min(image[np.ix_(r, c)].mean() for r in rows for c in columns))

    found = {
        "both": darkest(ends_y, ends_x),
        "y": darkest(ends_y, (x,)),
        "x": darkest((y,), ends_x),
    }
    brightest = max(found, key=lambda name: found[name])
    return brightest if found[brightest] > CORNER * darkest((y,), (x,)) else None
