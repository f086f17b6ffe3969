"""A recording becomes a native file once its series is over."""

import warnings
from pathlib import Path
from typing import Any

from ..io.datasets import read
from ..io.native import write_native
from ..io.readers.stream import positions_file, unplaced

NATIVE_BYTES = 2**31  # larger recordings are converted when the user asks for it


def finish(recording: Path, layout: dict[str, Any]) -> str:
    """Write the native file of a recording and remove it; returns a sentence of what is there.

    The recording stays where it is large, or where quantities are missing; it can be read as any
    file of a camera.
    """
    if recording.stat().st_size > NATIVE_BYTES:
        return f"{recording} is complete; jaxptycho convert {recording} OUT.h5 compresses it"
    if missing := unplaced(recording):
        return f"{recording} is complete, and {missing} of its frames have no position"
    native = recording.with_suffix(".h5")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the counts, which are kept as they are
            write_native(native, read(recording, bad_data="keep", **layout))
    except (ValueError, OSError) as error:
        return f"{recording} is complete, and no {native.name} was written: {error}"
    recording.unlink()
    positions_file(recording).unlink(missing_ok=True)
    return f"wrote {native}"
