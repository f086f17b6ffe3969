"""Origin of a file: versions, date, host, devices, and the data that it was made from."""

import hashlib
import platform
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax

HASHED_BYTES = 2**34  # largest file of data that is read to be named by its hash


def provenance() -> dict[str, str]:
    """Versions, date and time (UTC), host and devices of the running program."""
    packages = ("jaxptycho", "jax", "numpy")
    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        **{f"{package}_version": version(package) for package in packages},
        "python_version": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "devices": ", ".join(f"{count} × {kind}" for kind, count in kinds.items()),
    }


def hashing(path: str | Path) -> "Future[str | None]":
    """`data_hash` under way in a thread."""
    pool = ThreadPoolExecutor(1)
    under_way = pool.submit(data_hash, path)
    pool.shutdown(wait=False)
    return under_way


def data_hash(path: str | Path) -> str | None:
    """SHA-256 of a file of data, None for a folder and for what takes long to read."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size > HASHED_BYTES:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
