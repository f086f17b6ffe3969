"""What each of two real processes reads of the patterns: its own part, and no more."""

import ast

import numpy as np
import pytest
from pairs import pair

from jaxptycho import read
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.writing import write_job

WATCHED = """
import collections
import numpy as np
import jaxptycho.data.dataset
from jaxptycho.analysis import electron_response
from jaxptycho.io.hdf5 import OnDisk
seen, get = collections.Counter(), OnDisk.__getitem__
def counting(self, index):
    seen.update(np.arange(self.shape[0])[index].tolist())
    return get(self, index)
OnDisk.__getitem__ = counting
sampled = jaxptycho.data.dataset.Dataset.raw_sample
neighbours = electron_response.neighbouring_sample
def uncounted(self):  # every process looks at the same few patterns before it reads its part
    OnDisk.__getitem__ = get
    yield from sampled(self)
    OnDisk.__getitem__ = counting
def uncounted_neighbours(data):
    OnDisk.__getitem__ = get
    found = neighbours(data)
    OnDisk.__getitem__ = counting
    return found
jaxptycho.data.dataset.Dataset.raw_sample = uncounted
electron_response.neighbouring_sample = uncounted_neighbours
jaxptycho.data.dataset.IN_MEMORY_BYTES = int(sys.argv[3])
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.runner import Runner, start
from jaxptycho.distributed.multihost import sharing
job = read_job(sys.argv[2])
"""
AT_FIRST = (
    WATCHED
    + """
from jaxptycho import Dataset, Grid
from pathlib import Path
context = Runner(job, Path("unused")).context(0, job.step[0])
context.first_model()
print("read:", sorted(seen.elements()))
np.save(f"{sys.argv[2]}.{jax.process_index()}.npy", np.append(context.data.dose(), context.data.mean_pattern()))
counts = np.ones((10, 4, 4))
counts[7:15] = np.nan
try:
    Dataset(counts, np.zeros((10, 2)), Grid((4, 4), 0.4, 80.0), sharing=sharing())
except ValueError as error:
    print(error)
counts[:] = 0
try:
    Dataset(counts, np.zeros((10, 2)), Grid((4, 4), 0.4, 80.0), sharing=sharing())
except ValueError as error:
    print(error)
"""
)
ALL = (
    WATCHED
    + """
from pathlib import Path
start(job, Path(sys.argv[2]).with_suffix(""))
print("read:", dict(seen))
"""
)
TABLE = """
import numpy as np
from jaxptycho import Dataset, Grid
from jaxptycho.distributed import device_cache as resident
from jaxptycho.distributed.sharding import mesh
from jaxptycho.distributed.multihost import sharing
resident.fits, resident.BLOCK = lambda data: True, 8
class Reader:
    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, []
    def __getitem__(self, index):
        self.read += np.arange(self.shape[0])[index].tolist()
        return self.values[index]
counts = [Reader(np.random.default_rng(n).poisson(9, (n, 4, 4)).astype(np.uint8) + np.uint8(1)) for n in (21, 10)]
data = Dataset(counts, [np.zeros((21, 2)), np.zeros((10, 2))], Grid((4, 4), 0.4, 80.0), sharing=sharing())
for own in counts:
    own.read.clear()
for clean in data._clean:
    clean._known[:] = False  # as if it did not fit into memory
table = resident.pattern_table(data, mesh())
print("read:", [len(own.read) for own in counts])
known = np.concatenate([data.patterns(v, np.arange(n)) for v, n in enumerate(data.n_shots)])
assert (np.asarray(table.addressable_data(0)) == known).all()
"""


@pytest.fixture
def job(values, tmp_path):
    """Path of the job file."""

    def write(**changes):
        path = tmp_path / "job.toml"
        path.write_text(write_job(make_job(values | {"run": {"checkpoint_every": 1}} | changes)))
        return path

    return write


def lists(outs):
    return [
        ast.literal_eval(line[5:].strip())
        for out in outs
        for line in out.splitlines()
        if line.startswith("read:")
    ]


def test_each_process_looks_at_its_half_and_knows_what_all_found(job, measurement):
    path = job()
    outs = pair(AT_FIRST, path, 2**30)
    assert lists(outs) == [list(range(32)), list(range(32, 64))]
    alone = read(measurement)
    for rank, out in enumerate(outs):
        found = np.load(f"{path}.{rank}.npy")
        np.testing.assert_array_equal(
            found, np.append(alone.dose(), alone.mean_pattern())
        )  # to the bit
        nan, empty = out.splitlines()[-2:]  # only the second process saw the first
        assert nan.startswith("counts of shot 7 are not finite")
        assert empty.startswith("the patterns hold no counts")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 2**30])
def test_a_whole_run_reads_half_of_it_in_each_process(job, values, kept):
    """Start, epochs, fit and verdict at the end; only the first reads the few patterns of a figure."""
    path = job()
    seen = lists(pair(ALL, path, kept, seconds=240))
    every = seen[0].keys() | seen[1].keys()
    assert every == set(range(64))
    if kept:  # nothing is read twice
        assert max(max(own.values()) for own in seen) == 1
        return
    epochs = sum(step["epochs"] for step in values["step"])
    once = 64 / 2  # of each process
    padding = (
        epochs * 4 * 1 + 2
    )  # shots that make a batch even: 58 in 4 batches, and those held out
    for rank, own in enumerate(seen):
        expected = (epochs + 3) * once
        pictures = 16 + 4  # of the sheet, and of the figure
        assert expected - padding <= sum(own.values())
        assert sum(own.values()) <= expected + padding + pictures * (rank == 0)


def test_a_table_of_all_patterns_is_read_in_parts():
    """21 and 10 of them, eight together, evened for four devices with the last one, which is read once."""
    assert lists(pair(TABLE, devices=2)) == [[12, 6], [9, 5]]
