"""Files larger than memory: inspected in CPU seconds within 1 GB, and read shot by shot."""

import subprocess
import sys

import cameras
import numpy as np
import pytest

INSPECT = """
import resource, sys, time
from pathlib import Path
from jaxptycho.jobs.describe import describe
start = time.process_time()
print(describe(Path(sys.argv[1]))["patterns"])
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def sparse_mib(path, frames, begun=slice(None), shape=(256, 256)):
    """File of many frames, which hold nothing but the `begun` ones their first bytes."""
    counts = np.zeros((1, *shape), np.uint16)
    cameras.write_mib(path, counts)
    size = path.stat().st_size
    head = np.fromfile(path, np.uint8, 4)
    with open(path, "r+b") as file:
        file.truncate(frames * size)
    records = np.memmap(path, np.uint8, "r+", shape=(frames, size))
    records[begun, : len(head)] = head
    return path


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [2, 20])
def test_a_large_file_is_inspected_within_a_gigabyte(gigabytes, tmp_path):
    frames = gigabytes * 2**30 // (256 * 256 * 2)
    path = sparse_mib(tmp_path / "large.mib", frames)
    code = [sys.executable, "-c", INSPECT, str(path)]
    result = subprocess.run(code, capture_output=True, text=True, check=True)
    patterns, numbers = result.stdout.splitlines()
    cpu_seconds, kilobytes = map(float, numbers.split())
    assert patterns.startswith(str(frames))
    assert cpu_seconds < 30
    assert kilobytes < 1e6


def test_few_patterns_of_a_large_file_are_read_alone(tmp_path):
    """A file of 8 GB, of which nothing is kept in memory."""
    from jaxptycho.io.datasets import reading_of

    path = sparse_mib(tmp_path / "large.mib", 65536, begun=[5, 65535])
    patterns = reading_of(path).patterns
    assert patterns.shape == (65536, 256, 256)
    assert patterns[[5, 65535]].shape == (2, 256, 256)
