"""CXI 1.6, the format of the Coherent X-ray Imaging Data Bank (cxidb.org): SI units throughout.

The laboratory has z along the beam. `translation` is that of the sample, so the probe moves
on the sample by its negative. The two `basis_vectors` of the detector give the positions, in the
laboratory, of the next row (slow) and of the next column (fast) of a pattern. Light that leaves
the sample towards a point of the detector has a transverse frequency in that direction (far
field), and a hologram is a shadow of the sample (near field): either way the axes of the object
are those of the detector, and

    positions = (y, x) = (−T·ŝ, −T·f̂)   with ŝ, f̂ the unit vectors of slow and fast.

With the usual ŝ = (0, −1, 0) and f̂ = (−1, 0, 0), rows downwards and columns against x, this is
(y, x) = (T_y, T_x). Of the eight orientations only this one reconstructs the hologram of PETRA III.
"""

from pathlib import Path
from typing import Any, cast

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from scipy.constants import c, e, h

from ..data import ALONE, Dataset, ProcessShard
from ..data.frame import spacing, warn_of_rounding
from ..model import Model
from ..parts.indexed import PerShot, PerView, select
from ..physics import waves
from ..physics.grids import Grid
from ..start.calibration import effective_distance
from .arrangement import DATASET, Arrangement
from .hdf5 import FILTER, H5, OnDisk, create_hdf5, open_hdf5, save_array
from .instrument import (
    BEAM,
    INSTRUMENT,
    PAIRS,
    check_known,
    check_number,
    grid_of,
    merge_properties,
    wavelength_of,
)
from .native import chunk_layout, pattern_blocks
from .readers.frames import stored_frames

ANGSTROM = 1e-10  # m
CXI_PROPERTIES = ("near_field", "focus_to_sample_angstrom")
HAS_SIGNAL = 0x1000  # the only bit of a CXI mask that a good pixel may have
DETECTOR = "instrument_1/detector_1"
SOURCE = "instrument_1/source_1"
DATA = ("data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "data_1/translation",
    "sample_1/geometry_1/translation",
    "sample_1/geometry/translation",
    f"{DETECTOR}/translation",
)
WAVELENGTHS = (1e-4, 1e4)  # Å; a wavelength outside is in another unit


def is_cxi(file: H5) -> bool:
    """True for a file that is labelled CXI, or has its structure."""
    return "cxi_version" in file or "entry_1" in file


def read_cxi(
    path: str | Path,
    sharing: ProcessShard = ALONE,
    arrangement: Arrangement = DATASET,
    **known: Any,
) -> Dataset:
    """Dataset of the first entry of a CXI file; `known` properties replace those of the file.

    The far field, unless `near_field=True`: then a hologram, behind a focus when
    `focus_to_sample_angstrom` is given, at `about["effective_distance_angstrom"]`. The middle
    of the frame is assumed to be the middle of the pattern.
    """
    known = check_known(known, INSTRUMENT + CXI_PROPERTIES)
    near = known.pop("near_field", None)
    focus = known.get("focus_to_sample_angstrom")
    if focus is not None:
        check_number("focus_to_sample_angstrom", focus, "what is given beside the file")
        if near is False:
            raise ValueError(
                "focus_to_sample_angstrom belongs to a near field; remove it, or near_field = false"
            )
    with open_hdf5(path) as file:
        entry: H5 = file.get("entry_1")
        if not isinstance(entry, h5py.Group):
            raise ValueError(
                f"{path} has no group /entry_1; expected a CXI file with at least one entry"
            )
        patterns = _found(entry, DATA, "patterns", path)
        stored = np.asarray(_found(entry, TRANSLATION, "positions", path)[()])
        # NeXus (NXcxi_ptycho) stores a raster with two axes of the scan
        raster = stored.ndim == 3 and patterns.ndim == 4 and stored.shape[:2] == patterns.shape[:2]
        counts = stored_frames(patterns) if raster else OnDisk(patterns)
        stored = stored.reshape(-1, stored.shape[-1]) if raster else stored
        vectors = _basis_vectors(entry, path)
        distance = _number(entry, f"{DETECTOR}/distance", path)
        beam = merge_properties(
            _beam(entry, path), {name: known[name] for name in BEAM if name in known}
        )
        mask = _mask(entry)
    if len(counts.shape) != 3:
        raise ValueError(f"the patterns in {path} have shape {counts.shape}; expected [shot, y, x]")
    translation = stored.astype(float)
    if translation.ndim != 2 or translation.shape[1] not in (2, 3):
        raise ValueError(
            f"the translations in {path} have shape {translation.shape}; expected [shot, 2 or 3]"
        )
    geometry = {}
    if distance is not None:
        pixel = np.linalg.norm(vectors, axis=0) / ANGSTROM
        geometry = {"detector_distance_angstrom": distance / ANGSTROM}
        geometry |= (
            _near_field(distance / ANGSTROM, pixel, focus)
            if near or focus
            else {"dk_inverse_angstrom": pixel * ANGSTROM / (wavelength_of(beam, path) * distance)}
        )
    elif not set(PAIRS) & set(known):
        raise ValueError(f"{path} has no distance of its detector; add it, or give pixel_angstrom")
    about = merge_properties(beam | geometry, known)
    grid = grid_of(about, counts.shape[1:], path)
    warn_of_rounding(f"the translations in {path}", spacing(stored) / ANGSTROM, min(grid.pixel))
    positions = positions_in_plane(translation, vectors)
    return arrangement.dataset(counts, positions, grid, mask, about=about, sharing=sharing)


def positions_in_plane(translation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Positions (y, x) of the probe on the sample [Å].

    From translations of the sample [shot, 2 or 3] [m].
    """
    lab = np.pad(translation, ((0, 0), (0, 3 - translation.shape[1])))
    # least squares, because the vectors of a tilted detector need not be orthogonal
    return np.linalg.lstsq(
        vectors / np.linalg.norm(vectors, axis=0), -lab.T / ANGSTROM, rcond=None
    )[0].T


def export_cxi(
    path: str | Path, model: Model, data: Dataset, *, counts: bool = True, overwrite: bool = False
) -> None:
    """Write a reconstruction of one view as a CXI file, readable by `read_cxi` if it has `counts`.

    The transmission of every slice is `image_1`, the probe's modes (of shot 0, centre at
    [N//2, N//2]) are `image_2`; the positions are those of the model.
    """
    if data.n_views > 1:
        raise ValueError(
            f"a CXI file holds one view; this dataset has {data.n_views}, export each separately"
        )
    model = select(model, PerView, 0)
    positions = jax.vmap(lambda shot: select(model, PerShot, shot).scan.position())(
        jnp.arange(data.n_shots[0])
    )
    distance, vectors = _as_measured(data)
    with create_hdf5(path, overwrite) as file:
        file["cxi_version"] = 160
        file["number_of_entries"] = 1
        entry = file.create_group("entry_1")
        _save_source(entry, data.grid)
        _save_images(entry, model)
        entry[f"{DETECTOR}/distance"] = distance
        entry[f"{DETECTOR}/basis_vectors"] = vectors
        entry[f"{DETECTOR}/y_pixel_size"], entry[f"{DETECTOR}/x_pixel_size"] = np.linalg.norm(
            vectors, axis=0
        )
        entry[TRANSLATION[1]] = sample_translation(
            np.asarray(positions, float) + model.frame, vectors
        )
        entry[TRANSLATION[0]] = h5py.SoftLink(f"/entry_1/{TRANSLATION[1]}")
        if data.mask is not None:
            entry[f"{DETECTOR}/mask"] = (~data.mask).astype(np.uint32)
        if counts:
            stored = entry.create_dataset(
                DATA[1], **chunk_layout(data.grid, data.n_shots[0], data.kinds[0]), **FILTER
            )
            for block, patterns in pattern_blocks(data, 0):
                stored[block] = patterns
            entry[DATA[0]] = h5py.SoftLink(f"/entry_1/{DATA[1]}")


def sample_translation(positions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Translations of the sample [shot, 3] [m] for positions (y, x) of the probe on it [Å]."""
    return -(positions * ANGSTROM) @ (vectors / np.linalg.norm(vectors, axis=0)).T


def _as_measured(data: Dataset) -> tuple[float, np.ndarray]:
    """Distance and basis vectors of the detector [m]; at 1 m if the real distance is unknown."""
    pixel = np.asarray(data.grid.pixel)
    about = data.about
    if "effective_distance_angstrom" in about:
        magnification = about.get("magnification", 1.0)
        distance = about["effective_distance_angstrom"] * magnification
        pixel = pixel * magnification
    else:
        distance = about.get("detector_distance_angstrom", 1 / ANGSTROM)
        pixel = data.grid.wavelength * distance * np.asarray(data.grid.dk)
    return distance * ANGSTROM, usual_vectors(*(pixel * ANGSTROM))


def _save_source(entry: H5, grid: Grid) -> None:
    wavelength = grid.wavelength * ANGSTROM
    entry[f"{SOURCE}/wavelength"] = wavelength
    if grid.voltage_kv is None:
        entry[f"{SOURCE}/energy"] = h * c / wavelength
    else:
        entry[f"{SOURCE}/energy"] = 1e3 * e * grid.voltage_kv
        entry[f"{SOURCE}/probe"] = "electron"


def _save_images(entry: H5, model: Model) -> None:
    sliced = model.specimen.in_slices(model.grid).slices(model.grid)
    period = sliced.period or sliced.transmission.shape[1:]
    spectrum = select(model, PerShot, 0).probe.spectrum(model.grid)
    images = {
        "object": sliced.transmission[:, : period[0], : period[1]],
        "probe": jnp.fft.fftshift(waves.inverse_fourier(spectrum), axes=(-2, -1)),
    }
    for number, (title, values) in enumerate(images.items(), 1):
        image = entry.create_group(f"image_{number}")
        save_array(image, "data", values)
        image["title"] = title
        image["data_space"] = "real"
        image["y_pixel_size"], image["x_pixel_size"] = np.asarray(model.grid.pixel) * ANGSTROM
    # position of pixel [0, 0] of the object, for which CXI has no name
    entry["image_1/origin"] = (np.asarray(sliced.origin, float) + model.frame) * ANGSTROM


def _near_field(distance: float, pixel: np.ndarray, focus: float | None) -> dict[str, Any]:
    effective, magnification = (
        (distance, 1.0) if focus is None else effective_distance(focus, distance)
    )
    return {
        "pixel_angstrom": pixel / magnification,
        "effective_distance_angstrom": effective,
        "magnification": magnification,
    }


def _beam(entry: H5, path) -> dict[str, float]:
    """Voltage of electrons [kV], or wavelength of other radiation [Å] with its energy."""
    energy, wavelength = (
        _number(entry, f"{SOURCE}/{name}", path) for name in ("energy", "wavelength")
    )
    kind = entry.get(f"{SOURCE}/probe")
    if energy is not None and kind is not None and kind.asstr()[()].startswith("electron"):
        return {"voltage_kv": energy / e / 1e3}
    if energy is None and wavelength is None:
        return {}
    found = [
        w / ANGSTROM
        for w in (wavelength, None if energy is None else h * c / energy)
        if w is not None
    ]
    if (
        not all(WAVELENGTHS[0] < w < WAVELENGTHS[1] for w in found)
        or abs(found[0] / found[-1] - 1) > 0.01
    ):
        raise ValueError(
            f"{path}: the source has energy {energy} and wavelength {wavelength}; expected joules "
            "and metres of the same photons, give wavelength_angstrom or, for electrons, voltage_kv"
        )
    of_photons = {"wavelength_angstrom": found[0]}
    if kind is None and wavelength is None and energy is not None:  # of electrons
        of_photons["source_energy_kev"] = energy / e / 1e3
    return of_photons


def _basis_vectors(entry: H5, path) -> np.ndarray:
    """Steps to the next row and the next column in the laboratory [m], in columns."""
    stored = entry.get(f"{DETECTOR}/basis_vectors")
    if stored is not None:
        vectors = np.asarray(stored[()], float)
        # one for every shot, as some write it
        vectors = vectors[0] if vectors.ndim == 3 else vectors
        if vectors.shape in ((2, 3), (3, 2)):
            return vectors.T if vectors.shape == (2, 3) else vectors
        raise ValueError(
            f"basis_vectors in {path} have shape {vectors.shape}; expected two vectors of three "
            "numbers"
        )
    x, y = (_number(entry, f"{DETECTOR}/{name}_pixel_size", path) for name in "xy")
    if x is None and y is None:
        raise ValueError(
            f"{path} has neither basis_vectors nor x_pixel_size of its detector; add one of them"
        )
    return usual_vectors(cast(float, y or x), cast(float, x or y))


def usual_vectors(y_pixel: float, x_pixel: float) -> np.ndarray:
    """Basis vectors [m] of an upright detector: rows downwards, columns against x."""
    return np.array([[0.0, -x_pixel], [-y_pixel, 0.0], [0.0, 0.0]])


def _mask(entry: H5) -> np.ndarray | None:
    if (stored := entry.get(f"{DETECTOR}/mask")) is None:
        return None
    good = (stored[()].astype(np.uint32) & ~np.uint32(HAS_SIGNAL)) == 0
    return good.reshape(-1, *good.shape[-2:]).all(0)  # [y, x], or one for every shot


def _found(entry: H5, names, what: str, path) -> H5:
    for name in names:
        if isinstance(stored := entry.get(name), h5py.Dataset):
            return stored
    raise ValueError(
        f"{path} holds no {what}; a CXI file has them at "
        f"{' or '.join(f'/entry_1/{n}' for n in names)}"
    )


def _number(entry: H5, name: str, path) -> float | None:
    if (stored := entry.get(name)) is None:
        return None
    value = np.asarray(stored[()], float)
    if value.size < 1 or not np.isfinite(value).all() or not (value > 0).all():
        raise ValueError(f"/entry_1/{name} in {path} is {value}; expected a positive number")
    return float(value.flat[0])
