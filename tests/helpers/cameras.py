"""Small files of cameras, written by their specifications and not by the readers."""

import warnings
from pathlib import Path

import h5py
import numpy as np

SCAN = (3, 4)
FRAME = (8, 6)


def scan_counts(dtype=np.uint16, frame=FRAME, scan=SCAN, highest=200):
    """Random counts [scan y, scan x, y, x]; no two patterns and no two orientations are alike."""
    rng = np.random.default_rng(7)
    return rng.integers(0, highest, (*scan, *frame)).astype(dtype)


def write_mib(
    path: Path,
    counts,
    kind="U16",
    depth=12,
    layout="1x1",
    chips=1,
    hdr=None,
    first=1,
    times=None,
    exposure="1000000ns",
):
    """Frames [shot, y, x] as Merlin stores them: rows from the bottom upwards."""
    shots = counts.reshape(-1, *counts.shape[-2:])
    height, width = shots.shape[1:]
    if kind == "R64":
        height, width = height * width // (256 * chips), 256 * chips
        width *= 2 if depth == 24 else 1
    with open(path, "wb") as file:
        for number, frame in enumerate(shots):
            time = "2024-01-01T00:00:00.000000000Z" if times is None else times[number]
            head = (
                f"MQ1,{first + number:06d},{384 * chips:05d},{chips:02d},{width:04d},{height:04d},"
                f"{kind},{layout:>6},01,2024-01-01 00:00:00.000,0.001,0,0,0,4.0E+1,MQ1A,{time},"
                f"{exposure},{depth},"
            )
            file.write(head.encode().ljust(384 * chips, b"\0"))
            file.write(
                raw_bytes(frame[::-1], depth, chips)
                if kind == "R64"
                else frame[::-1].astype(f">u{int(kind[1:]) // 8}").tobytes()
            )
    if hdr is not None:
        lines = ["HDR,\t", *(f"{name}:\t{value}" for name, value in hdr.items()), "End\t"]
        path.with_suffix(".hdr").write_text("\n".join(lines))
    return path


def raw_bytes(frame, depth, chips) -> bytes:
    """Frame of a raw mode: words of 64 bits, the first pixel in the lowest bits of a word."""
    if depth == 24:
        return raw_bytes(frame >> 12, 12, chips) + raw_bytes(frame & 0xFFF, 12, chips)
    if chips == 4:
        half = frame.shape[0] // 2
        top, bottom = frame[:half], frame[half:][::-1, ::-1]
        # from the last chip to the first; rotating the lower half exchanges its chips
        rows = np.concatenate([bottom[:, :256], bottom[:, 256:], top[:, 256:], top[:, :256]], 1)
    else:
        rows = frame
    bits = {1: 1, 6: 8, 12: 16}[depth]
    words = rows.reshape(-1, 64 // bits).tolist()
    return b"".join(
        sum(int(pixel) << (bits * place) for place, pixel in enumerate(word)).to_bytes(8, "big")
        for word in words
    )


def line_times(scan=SCAN, pause_ms=50):
    """Times of frames of 1 ms, with a pause after every line."""
    moments = np.arange(np.prod(scan)) + pause_ms * (np.arange(np.prod(scan)) // scan[1])
    start = np.datetime64("2024-01-01T00:00:00.000000000")
    return [f"{start + np.timedelta64(int(m), 'ms')}Z" for m in moments]


def write_empad(folder: Path, counts, version=1, name="scan"):
    """Raw frames of 130 rows and their header in XML."""
    ny, nx = counts.shape[:2]
    frames = np.full((ny * nx, 130, 128), 1e6, "<f4")
    frames[:, :128] = counts.reshape(-1, 128, 128)
    raw = f"scan_x{nx}_y{ny}.raw"
    frames.tofile(folder / raw)
    old = (
        f"<pix_x>{nx}</pix_x><pix_y>{ny}</pix_y><iom_measurements>"
        "<source.get_voltage>300000.0</source.get_voltage>"
        "<optics.get_full_scan_field_of_view>[4e-08, 4e-08]</optics.get_full_scan_field_of_view>"
        "<calibrated_pixelsize>2e-10</calibrated_pixelsize></iom_measurements>"
    )
    new = (
        "<iom_measurements><high_voltage>80000</high_voltage><scan_rotation>0.5</scan_rotation>"
        "<full_scan_field_of_view><scale_factor>0.5</scale_factor><x>2e-08</x><y>2e-08</y>"
        "</full_scan_field_of_view></iom_measurements>"
    )
    body = f'<root name="a"><raw_file filename="{raw}"/><exposure_time>2</exposure_time>'
    path = folder / f"{name}.xml"
    path.write_text(f"{body}{old if version == 1 else new}</root>")
    return path


def write_blo(path: Path, counts):
    """Block file: 200 kV, 1.5 nm × 2 nm, 100 µm pixels at 0.25 m, rotated by 30°."""
    ny, nx, side = counts.shape[:3]
    header = b"IMGBLO" + np.array([0x0102], "<u2").tobytes()
    offset = 0x1000 + nx * ny
    header += np.array([0x1000, offset, 131141], "<u4").tobytes()
    header += np.array([side, 0, nx, ny, 3000], "<u2").tobytes()
    header += np.array([2.0, 1.5], "<f8").tobytes() + np.array([200000], "<u4").tobytes()
    header += np.array([10000], "<u2").tobytes() + np.array([2500], "<u4").tobytes()
    with open(path, "wb") as file:
        file.write(header.ljust(offset, b"\0"))
        for number, frame in enumerate(counts.reshape(-1, side, side)):
            file.write(b"\xaa\x55" + np.array([number], "<u4").tobytes())
            file.write(frame.astype(np.uint8).tobytes())
    return path


def write_dectris(folder: Path, counts, split=5, announced=None, mask=None, name="run"):
    """Master file with data files of up to `split` frames, and the metadata of STEM."""
    shots = counts.reshape(-1, *counts.shape[-2:])
    path = folder / f"{name}_master.h5"
    with h5py.File(path, "w") as file:
        for number, start in enumerate(range(0, len(shots), split), 1):
            part = f"{name}_data_{number:06d}.h5"
            with h5py.File(folder / part, "w") as data:
                data.create_dataset(
                    "entry/data/data",
                    data=shots[start : start + split],
                    chunks=(1, *shots.shape[1:]),
                    compression="gzip",
                )
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(part, "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector["description"] = np.bytes_("Dectris ARINA Si")
        detector["x_pixel_size"] = 1e-4
        detector["count_time"] = 1e-4
        detector["detectorSpecific/ntrigger"] = len(shots) if announced is None else announced
        detector["detectorSpecific/nimages"] = 1
        detector["detectorSpecific/photon_energy"] = 200e3
        if mask is not None:
            detector["detectorSpecific/pixel_mask"] = mask.astype(np.uint32)
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file.create_group("STEM Metadata").attrs.update(
            {
                "High Tension": [200e3],
                "NumPixelsX": counts.shape[1],
                "Pixel Size": [0.05],
                "NumPixelsY": counts.shape[0],
                "Camera Length": [0.2],
                "Rotation": [12.0],
            }
        )
    return path


def write_emdfile(path: Path, counts, semiangle=None):
    """EMD 1.0 as py4DSTEM writes it."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"emd_group_type": "file", "version_major": 1})
        root = file.create_group("datacube_root")
        root.attrs["emd_group_type"] = "root"
        cube = root.create_group("datacube")
        cube.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
        cube["data"] = counts
        for number, (step, unit) in enumerate(
            [(0.2, "nm"), (0.3, "nm"), (0.02, "A^-1"), (0.02, "A^-1")]
        ):
            cube[f"dim{number}"] = np.array([0, step])
            cube[f"dim{number}"].attrs["units"] = unit
        image = root.create_group("virtual_bf")
        image.attrs["emd_group_type"] = "array"
        image["data"] = counts.sum((2, 3))
        if semiangle is not None:
            root["metadatabundle/calibration/convergence_semiangle_mrad"] = semiangle
    return path


def write_berkeley(path: Path, counts, reversed_axes=False):
    """EMD 0.2 with vectors for all axes."""
    steps = [(4.0, "[A]"), (5.0, "[A]"), (0.5, "[n_m^-1]"), (0.5, "[n_m^-1]")]
    array = counts.transpose(3, 2, 1, 0) if reversed_axes else counts
    with h5py.File(path, "w") as file:
        group = file.create_group("signals/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = array
        for number, (step, unit) in enumerate(steps[::-1] if reversed_axes else steps, 1):
            group[f"dim{number}"] = step * np.arange(array.shape[number - 1])
            group[f"dim{number}"].attrs["units"] = np.bytes_(unit)
    return path


def write_hspy_into(file, counts):
    """Signal of HyperSpy in an open HDF5 or Zarr group."""
    file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
    signal = file.create_group("Experiments/__unnamed__")
    if isinstance(signal, h5py.Group):
        signal["data"] = counts
    else:
        array = signal.create_array("data", shape=counts.shape, dtype=counts.dtype)
        array[...] = counts
    axes = [("y", 0.3, "nm"), ("x", 0.4, "nm"), ("ky", 0.7, "mrad"), ("kx", 0.7, "mrad")]
    for number, (name, scale, unit) in enumerate(axes):
        axis = signal.create_group(f"axis-{number}")
        axis.attrs.update(
            {
                "name": name,
                "scale": scale,
                "units": unit,
                "offset": 0.0,
                "size": counts.shape[number],
                "navigate": number < 2,
            }
        )
    tem = signal.create_group("metadata/Acquisition_instrument/TEM")
    tem.attrs.update({"beam_energy": 120.0, "convergence_angle": 15.0})
    signal.create_group("original_metadata")


def write_hspy(path: Path, counts):
    with h5py.File(path, "w") as file:
        write_hspy_into(file, counts)
    return path


def write_zspy(path: Path, counts, version=2):
    import zarr

    if path.suffix == ".zip":
        path = path.with_suffix(".zspy")
        store = zarr.storage.ZipStore(str(path), mode="w")
        with warnings.catch_warnings():  # zarr writes groups of a zip file twice
            warnings.simplefilter("ignore", UserWarning)
            write_hspy_into(zarr.open_group(store, mode="w", zarr_format=version), counts)
        store.close()
    else:
        write_hspy_into(zarr.open_group(str(path), mode="w", zarr_format=version), counts)
    return path


def write_matlab(path: Path, counts, name="dp", **others):
    """Array of MATLAB (y, x, scan y, scan x), stored with its axes reversed, in a file of 7.3."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file[name] = counts.transpose(1, 0, 3, 2)
        for key, value in others.items():
            file[key] = value
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def write_fold_slice(path: Path, counts, positions=None):
    """`/dp` of MATLAB (y, x, shot), shots along y first; positions in `…_para.hdf5`."""
    shots = counts.transpose(1, 0, 3, 2).reshape(-1, *counts.shape[:1:-1])
    with h5py.File(path, "w") as file:
        file["dp"] = shots
    if positions is not None:
        with h5py.File(path.with_name(path.stem.removesuffix("_dp") + "_para.hdf5"), "w") as file:
            file["ppY"], file["ppX"] = positions.T
    return path


def write_ptyd(path: Path, counts, positions, split=5, energy=12.4):
    """Prepared data of ptypy in chunks."""
    shots = counts.reshape(-1, *counts.shape[-2:])
    with h5py.File(path, "w") as file:
        for number, start in enumerate(range(0, len(shots), split)):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"] = shots[start : start + split].astype(np.float32)
            chunk["positions"] = positions[start : start + split] * 1e-10
            weights = np.ones_like(chunk["data"][()])
            weights[:, 0, 1] = 0
            chunk["weights"] = weights
        for name, value in {
            "energy": energy,
            "distance": 2.0,
            "psize": 5e-5,
            "num_frames": len(shots),
        }.items():
            file[f"meta/{name}"] = value
        file["meta/label"] = np.bytes_("None")
    return path


def write_nexus(path: Path, counts, interpretation="image"):
    """NeXus with a default NXdata, whose axes of the scan are in nm."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "shown"})
        for name, array in {"shown": counts, "other": counts[:2]}.items():
            data = entry.create_group(name)
            data.attrs.update(
                {
                    "NX_class": "NXdata",
                    "signal": "data",
                    "axes": ["y", "x", ".", "."],
                    "interpretation": interpretation,
                }
            )
            data["data"] = array
            for axis, step in (("y", 0.5), ("x", 0.6)):
                data[axis] = step * np.arange(array.shape["yx".index(axis)])
                data[axis].attrs["units"] = "nm"
    return path


def write_npz(path: Path, counts, compressed=False):
    (np.savez_compressed if compressed else np.savez)(path, note=np.arange(3), counts=counts)
    return path
