"""Rows of compressed datasets, as HDF5 itself reads them."""

import h5py
import numpy as np
import pytest

from jaxptycho.io.hdf5 import OnDisk
from jaxptycho.io.parallel_gzip import read_chunks

SHAPE = (3, 11, 4, 6)  # view, shot, y, x
GZIP = {"compression": "gzip", "compression_opts": 1}
ROWS = np.array([0, 1, 4, 5, 9, 10])


@pytest.fixture
def stored(tmp_path):
    """`stored(**how)` is a dataset of random numbers, and these."""
    with h5py.File(tmp_path / "a.h5", "w") as file:

        def make(dtype="<u2", shape=SHAPE, **how):
            values = np.random.default_rng(0).integers(0, 2**15, shape).astype(dtype)
            return file.create_dataset("counts", data=values, **how), values

        yield make


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<i4", "<f4", ">f8"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("together", [1, 4, 11])
def test_chunks_of_whole_rows_are_inflated(stored, dtype, shuffle, together):
    dataset, values = stored(dtype, chunks=(1, together, 4, 6), shuffle=shuffle, **GZIP)
    found = read_chunks(dataset, (2,), ROWS)
    assert found is not None
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values[2, ROWS])


@pytest.mark.parametrize("how", [{}, {"chunks": (1, 4, 4, 6), **GZIP}])
@pytest.mark.parametrize(
    "rows", [slice(2, 9), slice(None), slice(0), slice(9, 20), np.array([], int), np.array([7])]
)
def test_rows_by_slices_and_lists(stored, how, rows):
    dataset, values = stored(**how)
    dataset.file.flush()
    np.testing.assert_array_equal(OnDisk(dataset)[2, rows], values[2, rows])


def test_views_need_not_be_there(stored):
    dataset, values = stored(shape=SHAPE[1:], chunks=(2, 4, 6), shuffle=True, **GZIP)
    np.testing.assert_array_equal(read_chunks(dataset, (), ROWS), values[ROWS])


OTHERS = {
    "contiguous": {},
    "not compressed": {"chunks": (1, 4, 4, 6)},
    "another filter": {"chunks": (1, 4, 4, 6), "compression": "lzf"},
    "a checksum": {"chunks": (1, 4, 4, 6), "fletcher32": True, **GZIP},
    "parts of rows": {"chunks": (1, 4, 2, 6), **GZIP},
    "several views": {"chunks": (3, 4, 4, 6), **GZIP},
}


@pytest.mark.parametrize("name", OTHERS)
def test_all_others_are_left_to_hdf5(stored, name):
    dataset, values = stored(**OTHERS[name])
    assert read_chunks(dataset, (2,), ROWS) is None
    dataset.file.flush()
    np.testing.assert_array_equal(OnDisk(dataset)[2, ROWS], values[2, ROWS])


def test_a_chunk_that_is_not_like_the_rest_is_left_to_hdf5(stored):
    dataset, values = stored(chunks=(1, 4, 4, 6), shuffle=True, **GZIP)
    dataset.id.write_direct_chunk(
        (2, 4, 0, 0), values[2, 4:8].tobytes(), filter_mask=0b11
    )  # neither filter
    assert read_chunks(dataset, (2,), ROWS) is None
    dataset.file.flush()
    np.testing.assert_array_equal(OnDisk(dataset)[2, ROWS], values[2, ROWS])


def test_a_chunk_that_was_never_written_is_left_to_hdf5(stored):
    dataset, _ = stored(chunks=(1, 4, 4, 6), maxshape=(3, None, 4, 6), **GZIP)
    dataset.resize(16, axis=1)
    assert read_chunks(dataset, (2,), np.array([15])) is None
    dataset.file.flush()
    assert not OnDisk(dataset)[2, np.array([15])].any()


@pytest.mark.parametrize("packed", [b"no gzip at all", None])
def test_a_damaged_chunk_is_refused_by_hdf5(stored, packed):
    dataset, _ = stored(chunks=(1, 4, 4, 6), **GZIP)
    whole = dataset.id.read_direct_chunk((2, 4, 0, 0))[1]
    dataset.id.write_direct_chunk((2, 4, 0, 0), packed or whole[: len(whole) // 2])
    dataset.file.flush()
    with pytest.raises(
        ValueError, match=r"a\.h5 cannot be read .*; where it is truncated or damaged"
    ):
        OnDisk(dataset)[2, ROWS]
