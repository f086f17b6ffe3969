"""Datasets: what is refused, what is cleaned, which shots a batch holds, and who reads when."""

import threading
import time
import warnings

import numpy as np
import pytest

import jaxptycho.data.dataset
from jaxptycho import Dataset, Grid, batches, make_batch, prefetch, split, stacked

GRID = Grid((6, 4), 0.5, 80.0)


def random_counts(*shape, seed=0):
    return np.random.default_rng(seed).poisson(20, (*shape, *GRID.shape)).astype(
        np.uint16
    ) + np.uint16(1)


def raster(ny=8, nx=8, step=2.0, angle=0.3):
    y, x = (a.ravel() * step for a in np.mgrid[:ny, :nx])
    return np.stack(
        [y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)], -1
    )


def dataset(ny=8, nx=8, **changes):
    return Dataset(
        **({"counts": random_counts(ny * nx), "positions": raster(ny, nx), "grid": GRID} | changes)
    )


class Reader:
    """An array that says how much of it was asked for at once."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.largest = values, values.shape, values.dtype, 0

    def __getitem__(self, index):
        block = self.values[index]
        self.largest = max(self.largest, len(block))
        return block


def with_nan():
    counts = random_counts(64).astype(float)
    counts[5:20, 2, 3] = np.nan
    return counts


def all_but(*pixels):
    mask = np.ones(GRID.shape, bool)
    for pixel in pixels:
        mask[pixel] = False
    return mask


REFUSED = {
    "missing counts": ({"counts": None}, "counts require 3 dimensions"),
    "one pattern": ({"counts": random_counts()}, "counts require 3 dimensions"),
    "no shots": ({"counts": random_counts(0), "positions": np.zeros((0, 2))}, "at least one shot"),
    "complex": ({"counts": random_counts(64) * 1j}, "real numbers"),
    "a ragged pattern": ({"counts": [random_counts()]}, "real numbers"),
    "misshaped": (
        {"counts": random_counts(64)[..., :3]},
        r"patterns are \(6, 3\) pixels, the grid is \(6, 4\)",
    ),
    "positions too few": ({"positions": raster()[:63]}, r"require positions of shape \(64, 2\)"),
    "positions of 3": ({"positions": np.zeros((64, 3))}, r"got \(64, 3\)"),
    "positions of two views": (
        {"positions": [np.zeros((64, 2))] * 2},
        "1 views came with positions of 2",
    ),
    "lost positions": (
        {"positions": np.where(np.arange(64)[:, None] % 8 == 7, np.inf, raster())},
        "position of shot 7 is .inf inf., and so are 8 of 64",
    ),
    "nan": ({"counts": with_nan()}, "counts of shot 5 are not finite inside the mask"),
    "nan in view 1": (
        {"counts": [random_counts(64), with_nan()], "positions": [raster(), raster()]},
        "counts of shot 5 of view 1 are not finite",
    ),
    "empty": ({"counts": np.zeros((64, *GRID.shape), np.uint16)}, "hold no counts"),
    "all hidden": ({"mask": np.zeros(GRID.shape)}, "hides every pixel"),
    "mask of another shape": ({"mask": np.ones((4, 6))}, r"the mask is \(4, 6\) pixels"),
    "tilts of other views": (
        {"tilts": np.zeros(2)},
        r"the tilts have shape \(2,\); one is required",
    ),
    "a tilt that is none": ({"tilts": np.array([np.nan])}, "tilt of view 0 is nan"),
    "probe": ({"probe_guess": np.ones((4, 6))}, r"guess of the probe has shape \(4, 6\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name):
    changes, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        dataset(**changes)


def test_clips_negative_counts_and_says_how_many():
    counts = random_counts(64).astype(np.int64)
    counts[3, 1, :2] = -4
    with pytest.warns(UserWarning, match="2 negative counts"):
        data = dataset(counts=counts)
    np.testing.assert_allclose(data.dose()[3], np.maximum(counts[3], 0).sum())
    assert data.patterns(0, np.arange(64)).min() == 0
    with warnings.catch_warnings():  # once is enough
        warnings.simplefilter("error")
        data.subset(np.arange(5))


def test_pixels_outside_the_mask_never_count():
    counts = with_nan()
    counts[7, 0, 0] = -3
    data = dataset(counts=counts, mask=all_but((2, 3), (0, 0)))
    clean = np.where(data.mask, counts, 0)
    np.testing.assert_array_equal(
        data.patterns(0, [5, 7]), np.fft.ifftshift(clean[[5, 7]], axes=(1, 2))
    )
    np.testing.assert_allclose(data.mean_pattern(), clean.mean(0))


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "i8", "u8", "f8", "f2", "?"])
def test_counts_of_any_type_reach_the_device_unchanged(dtype):
    counts = random_counts(64).astype(dtype)
    read = dataset(counts=counts).patterns(0, np.arange(64))
    assert read.dtype.isnative
    assert read.dtype.itemsize <= 4
    np.testing.assert_array_equal(read, np.fft.ifftshift(counts, axes=(1, 2)))


@pytest.mark.parametrize("limit", [0, 2**30])
def test_stays_lazy_beyond_the_memory_limit(monkeypatch, limit):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", limit)
    reader = Reader(random_counts(200))
    data = dataset(10, 20, counts=reader)
    assert reader.largest <= jaxptycho.data.dataset.BLOCK
    shots = np.array([150, 3, 3, 77])
    expected = np.fft.ifftshift(reader.values[shots], axes=(1, 2))
    reader.values = reader.values + np.uint16(limit == 0)  # only who reads again sees this
    np.testing.assert_array_equal(data.patterns(0, shots), expected + (limit == 0))


@pytest.mark.parametrize("limit", [0, 2**30])
def test_reads_a_memory_map(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", limit)
    values = random_counts(3, 64)
    values.tofile(tmp_path / "counts.raw")
    mapped = np.memmap(tmp_path / "counts.raw", np.uint16, "r", shape=values.shape)
    data = dataset(
        counts=mapped, positions=np.stack([raster()] * 3), tilts=np.array([-0.1, 0.0, 0.1])
    )
    np.testing.assert_array_equal(
        data.patterns(2, [5, 1]), np.fft.ifftshift(values[2, [5, 1]], axes=(1, 2))
    )


def test_views_may_differ_in_length():
    counts = [random_counts(9), random_counts(4, seed=1)]
    data = Dataset(counts, [raster(3, 3), raster(2, 2)], GRID)
    assert (data.n_views, data.n_shots) == (2, [9, 4])
    np.testing.assert_allclose(data.mean_pattern(), np.concatenate(counts).mean(0))
    seen = [(int(b.view), int(s)) for b in batches(data, 5) for s in b.shots[b.weight > 0]]
    assert sorted(seen) == [(0, s) for s in range(9)] + [(1, s) for s in range(4)]
    assert {b.counts.shape for b in batches(data, 5)} == {(5, *GRID.shape)}


def test_another_mask_holds_for_a_part_of_a_measurement():
    whole = Dataset(random_counts(64), raster(), GRID, mask=all_but((0, 1)))
    part = whole.subset(np.arange(8))
    fewer = all_but((0, 1), (2, 3))
    again = Dataset(part.counts, part.positions, GRID, mask=fewer)
    np.testing.assert_array_equal(again.dose(), np.sum(random_counts(64)[:8] * fewer, (1, 2)))


def test_subset_is_the_same_measurement_of_fewer_shots(monkeypatch):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    data = dataset(about={"semiangle_mrad": 20.0}, mask=all_but((1, 1)))
    part = data.subset([9, 2, 60])
    np.testing.assert_array_equal(part.positions[0], raster()[[2, 9, 60]])
    np.testing.assert_array_equal(part.patterns(0, [0, 2]), data.patterns(0, [2, 60]))
    assert (part.about, part.grid) == (data.about, data.grid)


@pytest.mark.parametrize("order", ["random", "compact", "sparse"])
def test_every_shot_once_an_epoch(order):
    data = dataset()
    epochs = [list(batches(data, 10, 1, order=order, seed=3, first_epoch=e)) for e in range(2)]
    for epoch in epochs:
        assert {b.shots.shape for b in epoch} == {(10,)}
        assert sorted(np.concatenate([b.shots[b.weight > 0] for b in epoch])) == list(range(64))
        for batch in epoch:
            np.testing.assert_array_equal(batch.counts, data.patterns(0, batch.shots))
    assert any((a.shots != b.shots).any() for a, b in zip(*epochs, strict=True))
    again = list(batches(data, 10, 2, order=order, seed=3))  # a resumed run sees the same batches
    for one, other in zip(epochs[0] + epochs[1], again, strict=True):
        np.testing.assert_array_equal(one.shots, other.shots)


def extent(data, order):
    """Root mean square distance of the shots of a batch from their middle, per epoch."""
    spread = [
        data.positions[0][b.shots[b.weight > 0]].std(0)
        for b in batches(data, 16, 1, order=order, seed=1)
    ]
    return np.sqrt(np.mean(np.sum(np.square(spread), -1)))


def test_compact_batches_are_compact_and_sparse_ones_are_spread():
    data = dataset(16, 16, counts=random_counts(256))
    whole = np.sqrt(np.sum(np.var(data.positions[0], axis=0)))
    assert extent(data, "compact") < 0.3 * whole  # 4 × 4 of 16 × 16 would be 0.24
    assert extent(data, "sparse") > 0.95 * whole

    def closest(order):  # the closest two shots of a batch
        middle = []
        for b in batches(data, 16, 1, order=order, seed=1):
            p = data.positions[0][b.shots]
            middle.append(np.sort(np.linalg.norm(p[:, None] - p, axis=-1), axis=1)[:, 1].mean())
        return np.mean(middle)

    assert closest("sparse") > 1.1 * closest("random") > 1.5 * closest("compact")


def test_a_short_batch_is_padded_with_weight_zero():
    batch = make_batch(dataset(), 0, [4, 7], size=5)
    np.testing.assert_array_equal(batch.weight, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(batch.shots, [4, 7, 4, 4, 4])
    assert batch.counts.shape == (5, *GRID.shape)
    assert (batch.weight.dtype, batch.shots.dtype, np.asarray(batch.view).dtype) == (
        np.float32,
        np.int32,
        np.int32,
    )


def test_batches_of_some_shots_only():
    data = dataset()
    chosen = np.array([3, 9, 27])
    for shots in (chosen, [chosen]):
        assert [sorted(b.shots) for b in batches(data, 8, shots=shots)] == [[3, 9, 27]]
    assert list(batches(data, 8, shots=[np.array([], int)])) == []
    padded = list(batches(data, 8, shots=np.arange(11), at_least=9))
    assert [len(b.shots) for b in padded] == [9, 9]
    assert sorted(np.concatenate([b.shots[b.weight > 0] for b in padded])) == list(range(11))


@pytest.mark.parametrize("parts", [2, 3])
def test_every_part_of_a_batch_is_read_by_itself(monkeypatch, parts):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    reader = Reader(random_counts(64))
    data = dataset(counts=reader)
    wanted = [batch.shots[batch.weight > 0] for batch in batches(data, 10, seed=1)]
    reader.largest = 0
    drawn = zip(*(batches(data, 10, seed=1, part=(i, parts)) for i in range(parts)), strict=True)
    for whole, shares in zip(wanted, drawn, strict=True):
        assert {len(share.shots) for share in shares} == {-(-10 // parts)}
        np.testing.assert_array_equal(
            np.concatenate([s.shots[s.weight > 0] for s in shares]), whole
        )
    assert reader.largest <= -(-10 // parts)


def test_batches_refuse_an_unknown_order_and_no_size():
    with pytest.raises(
        ValueError, match="unknown order of batches 'spiral'; known are random, compact, sparse"
    ):
        next(batches(dataset(), 4, order="spiral"))
    with pytest.raises(ValueError, match="give at least 1"):
        next(batches(dataset(), 0))


def test_split_keeps_some_shots_aside():
    data = dataset()
    (learn,), (held,) = split(data, 0.25, seed=5)
    assert len(held) == 16
    assert sorted([*learn, *held]) == list(range(64))
    assert (np.diff(held) > 0).all()
    (again,) = split(data, 0.25, seed=5)[1]
    np.testing.assert_array_equal(held, again)
    assert (split(data, 0.25, seed=6)[1][0] != held).any()
    assert [len(h) for h in split(data, 0.0)[1]] == [0]
    with pytest.raises(ValueError, match=r"hold_out = 1.0; give a fraction"):
        split(data, 1.0)


@pytest.mark.parametrize(
    ("size", "shapes"),
    [(1, [(8, 1), (8, 1), (8, 1)]), (3, [(2, 3)] * 4), (5, [(5,)] * 5), (16, [(12,)] * 2)],
)
def test_small_batches_are_stacked_and_the_rest_comes_singly(size, shapes):
    singly = list(batches(dataset(4, 6), size))
    together = list(stacked(singly, shots=8))
    assert [b.shots.shape for b in together] == shapes
    assert np.concatenate(
        [b.counts.reshape(-1, *b.counts.shape[-2:]) for b in together]
    ).sum() == sum(b.counts.sum() for b in singly)


def test_prefetch_yields_the_same_in_the_same_order():
    assert list(prefetch(range(50), depth=3)) == list(range(50))


def test_prefetch_hands_exceptions_on():
    def broken():
        yield 1
        raise ValueError("the disk is gone")

    items = prefetch(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="the disk is gone"):
        next(items)


def test_an_abandoned_prefetch_ends_its_thread():
    before = threading.active_count()
    items = prefetch(iter(int, 1))  # zeros without end
    assert [next(items) for _ in range(5)] == [0] * 5
    assert threading.active_count() == before + 1
    items.close()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() == before
