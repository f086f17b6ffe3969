"""A file that another program is still writing: a recording (`io.stream`), or HDF5."""

import time
from pathlib import Path

import h5py
import numpy as np

from ...io.stream import END, HEADER_BYTES, parse_series
from ..intake import Intake
from .address import Address
from .connection import POLL, Patience
from .growing_hdf5 import receive_hdf5


def receive_file(address: Address, intake: Intake, patience: float) -> None:
    """Hand over the frames of a file as it grows, until all are there or it rests."""
    path = Path(address.host)
    waits = Patience(patience, address, intake)
    while not path.exists():
        waits.tried()
        time.sleep(POLL)
    if h5py.is_hdf5(path):
        receive_hdf5(path, intake, waits)
    else:
        _receive_recording(path, intake, waits)


def _receive_recording(path: Path, intake: Intake, waits: Patience) -> None:
    with path.open("rb") as file:
        series = parse_series(file.readline(HEADER_BYTES), path)
        intake.begin(series)
        left = series.frames
        size = series.record.itemsize
        while left > 0:
            slots = intake.room(left)
            place = file.tell()
            count = file.readinto(slots.view(np.uint8).data) // size
            file.seek(place + count * size)
            if count == 0:
                waits.tried()
                time.sleep(POLL)
                continue
            waits.fed()
            ended = np.flatnonzero(slots["number"][:count] == END)
            count = int(ended[0]) if len(ended) else count
            intake.commit(count)
            left = 0 if len(ended) else left - count
        intake.end()
