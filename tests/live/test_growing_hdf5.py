"""HDF5 files that another program writes in SWMR mode are sources of frames."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from cameras_live import frames, received, receiver

from jaxptycho.live.sources.address import parse_address

SHAPE = (6, 8)
# a program of its own, since one process cannot write and read in SWMR mode
WRITER = """
import sys, time
import h5py, numpy as np
path, source, kind, chunk, pause = sys.argv[1:4] + [int(sys.argv[4]), float(sys.argv[5])]
frames = np.load(source)
n, shape = len(frames), frames.shape[1:]
with h5py.File(path, "w", libver="latest") as file:
    if kind == "lines":
        made = (4, n // 4, *shape), dict(chunks=(1, 1, *shape))
    elif kind == "fixed":
        made = (n, *shape), dict(chunks=(chunk, *shape))
    else:
        most = n if kind == "grows" else None
        made = (0, *shape), dict(chunks=(chunk, *shape), maxshape=(most, *shape))
    stored = file.create_dataset("entry/data/data", made[0], frames.dtype, **made[1])
    file.swmr_mode = True
    for i, frame in enumerate(frames):
        if kind in ("grows", "endless"):
            stored.resize(i + 1, 0)
        stored[divmod(i, n // 4) if kind == "lines" else i] = frame
        stored.flush()
        time.sleep(pause)
"""


def grown(tmp_path, sent, kind, chunk=1, pause=0.01, **options):
    """What a receiver takes from a file while another process writes it."""
    source = tmp_path / "source.npy"
    np.save(source, sent)
    path = tmp_path / "grown.h5"
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", WRITER, path, source, kind, str(chunk), str(pause)]
    with (
        subprocess.Popen(command) as writer,
        receiver(parse_address(str(path)), tmp_path / "out", **options) as link,
    ):
        found = received(link, 1)
    assert writer.returncode == 0
    return found


@pytest.mark.parametrize(
    ("kind", "chunk"), [("grows", 1), ("grows", 4), ("fixed", 1), ("lines", 1)]
)
def test_frames_are_taken_while_they_are_written(kind, chunk, tmp_path):
    sent = frames(40, dtype=np.dtype(">u2")) + 1
    [(begun, numbers, pixels, note)] = grown(tmp_path, sent, kind, chunk)
    assert note == ""
    np.testing.assert_array_equal(numbers, np.arange(40))
    np.testing.assert_array_equal(pixels, sent)
    assert begun.series.about.get("scan_shape") == ([4, 10] if kind == "lines" else None)


def test_a_file_that_grows_without_end_asks_for_the_scan(tmp_path):
    sent = frames(12)
    [(_, _, pixels, _)] = grown(tmp_path, sent, "endless", given={"scan_shape": [3, 4]})
    np.testing.assert_array_equal(pixels, sent)
    (tmp_path / "other").mkdir()
    with (
        receiver(parse_address(str(tmp_path / "grown.h5")), tmp_path / "other") as link,
        pytest.raises(ValueError, match=r"may grow without end; .* scan_shape"),
    ):
        list(link.events())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing tells which frames"),
        ({"chunks": (2, *SHAPE)}, "nothing tells which frames"),
        ({"chunks": (1, *SHAPE), "maxshape": (9, *SHAPE)}, "sent nothing for 0.3 s"),
    ],
    ids=["contiguous", "deep chunks", "unfinished"],
)
def test_what_cannot_be_followed_is_told(options, words, tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("data", data=frames(6, shape=SHAPE), **options)
    (tmp_path / "out").mkdir()
    with receiver(parse_address(str(path)), tmp_path / "out", patience=0.3) as link:
        events = link.events()
        with pytest.raises(ValueError, match=words):
            list(events)
    assert path.exists()
