"""One contract for all processors: any order, any division, weight 0, many in one read."""

import jax
import numpy as np
import pytest
import sines

import jaxptycho as jp
from jaxptycho import direct
from jaxptycho.start.superpixels import superpixels_of
from jaxptycho.start.tiles import TileSums

pytestmark = pytest.mark.usefixtures("quick_to_compile")
N = sines.SIDE**2
INDEX, K = sines.pixels()
LENS = sines.optics(defocus=150.0)
PLACES = sines.positions()
KEPT = direct.BrightField(INDEX, K, sines.GRID, N, np.dtype(np.uint16))
PROCESSORS = {
    "bright field": KEPT,
    "bright field in squares": direct.in_squares(KEPT, 2),
    "moments": direct.Moments(sines.GRID.shape),
    "virtual detectors": direct.VirtualDetector(
        direct.ring_segments(sines.GRID, 0.0, 25e-3, 4), sines.GRID, N
    ),
    "centre of mass": direct.CentreOfMass(sines.GRID, N),
    "tile sums": TileSums((np.arange(N) // 50).astype(np.int32), (3, *sines.GRID.shape)),
    "superpixels": superpixels_of(
        sines.GRID, np.ones(sines.GRID.shape, bool), 5.8, np.zeros((N, 2))
    ),
    "parallax": direct.Parallax(
        INDEX, K, direct.montage_grid(PLACES, LENS, 0.5), LENS, np.linspace(-9.0, 9.0, N)
    ),
}
by_processor = pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)


@pytest.fixture(scope="module")
def data():
    rate = 5e3 * sines.patterns(LENS, (1, 2), PLACES) / 100
    counts = np.random.default_rng(0).poisson(rate).astype(np.uint16)
    return jp.Dataset(np.fft.fftshift(counts, axes=(1, 2)), PLACES, sines.GRID, bad_data="keep")


def same(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        scale = max(np.abs(np.asarray(one)).max(), 1e-6)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5 * scale)


def states(processor, data, size=48):
    """State of every block alone."""
    update = jax.jit(lambda block: processor.update(processor.init(), block))
    return [update(block) for block in direct.read_blocks(data, size)]


@by_processor
def test_merging_is_associative_and_commutative(processor, data):
    a, b, c = states(processor, data)
    merge = processor.merge
    same(merge(merge(a, b), c), merge(a, merge(b, c)))
    same(merge(a, b), merge(b, a))
    same(merge(a, processor.init()), a)


@by_processor
def test_order_and_size_of_blocks_change_nothing(processor, data):
    (whole,) = direct.over(data, processor, block=N)
    blocks = list(direct.read_blocks(data, 48))
    (shuffled,) = direct.over([blocks[i] for i in (2, 0, 1)], processor)
    same(whole, shuffled)
    order = np.random.default_rng(1).permutation(N)
    one = direct.Block(order, PLACES[order], data.patterns(0, order), np.ones(N, np.float32))
    same(whole, direct.over([one], processor)[0])


@by_processor
def test_patterns_of_weight_zero_change_nothing(processor, data):
    block = next(direct.read_blocks(data, N))
    weight = (np.arange(N) < 100).astype(np.float32)
    spoilt = np.where(weight[:, None, None] > 0, block.patterns, 60000).astype(np.uint16)
    part = direct.Block(block.shots, block.positions, spoilt, weight)
    shots = np.minimum(np.arange(N), 99)
    other = direct.Block(shots, PLACES[shots], data.patterns(0, shots), weight)
    same(direct.over([part], processor)[0], direct.over([other], processor)[0])


@by_processor
def test_blocks_without_a_weight_change_no_bit(processor, data):
    block = next(direct.read_blocks(data, 48))
    broken = np.full(block.patterns.shape, np.nan, np.float32)
    broken[::2] = np.inf
    update = jax.jit(lambda state, block: processor.update(state, block))
    state = update(processor.init(), block)
    after = update(state, direct.Block(block.shots, block.positions, broken, np.zeros(48)))
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(one, other)


@by_processor
def test_results_are_defined_from_the_first_pattern_on(processor, data):
    one = next(direct.read_blocks(data, 48))
    first = direct.Block(one.shots, one.positions, one.patterns, (np.arange(48) == 5) * 1.0)
    for value in jax.tree.leaves(direct.over([first], processor)[0]):
        if isinstance(value, jax.Array | np.ndarray) and value.dtype.kind in "fc":
            assert np.isfinite(value).all()


@by_processor
def test_every_processor_is_traced_once(processor, data):
    traces = []

    def update(state, block):
        traces.append(block)
        return processor.update(state, block)

    update = jax.jit(update)
    state = processor.init()
    for block in direct.read_blocks(data, 48):
        state = update(state, block)
    assert len(traces) == 1


def test_many_processors_share_one_read(data):
    read = []

    def blocks():
        for block in direct.read_blocks(data, 40):
            read.append(np.sum(block.weight))
            yield block

    together = direct.over(blocks(), *PROCESSORS.values())
    assert sum(read) == N
    for processor, result in zip(PROCESSORS.values(), together, strict=True):
        same(result, direct.over(data, processor, block=40)[0])


def test_blocks_are_shared_among_devices(data):
    processor = PROCESSORS["moments"]
    (one,) = direct.over(data, processor, block=20)
    (several,) = direct.over(data, processor, block=20, devices=jax.local_devices()[:3])
    same(one, several)


def test_compiled_once(data):
    traces = []

    class Counted(direct.AbstractProcessor):
        def init(self):
            return jax.numpy.zeros(())

        def update(self, state, block):
            traces.append(block)
            return state + block.weight.sum()

        def merge(self, first, second):
            return first + second

        def result(self, state):
            return float(state)

    assert direct.over(data, Counted(), block=50) == (N,)
    assert len(traces) == 1


def test_results_are_those_of_numpy(data):
    kept, squares, moments, signals, centres, *_ = direct.over(data, *PROCESSORS.values())
    patterns = data.patterns(0, np.arange(N)).astype(float)
    np.testing.assert_array_equal(kept.counts, patterns.reshape(N, -1)[:, INDEX])
    members = PROCESSORS["bright field in squares"].pixels
    np.testing.assert_array_equal(squares.counts, patterns.reshape(N, -1)[:, members].sum(2))
    shifted = np.fft.fftshift(patterns, axes=(1, 2))
    np.testing.assert_allclose(moments.mean, shifted.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, shifted.var(0, ddof=1), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(signals.total, patterns.sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(centres.total, signals.total, rtol=1e-6)


def test_moments_of_large_counts_keep_their_digits():
    rng = np.random.default_rng(2)
    counts = 50000 + rng.integers(-3, 4, (90, 2, 2))
    blocks = [
        direct.Block(np.arange(30), np.zeros((30, 2)), part.astype(np.uint16), np.ones(30))
        for part in counts.reshape(3, 30, 2, 2)
    ]
    (found,) = direct.over(blocks, direct.Moments((2, 2)))
    np.testing.assert_allclose(found.variance, np.fft.fftshift(counts.var(0, ddof=1)), rtol=2e-2)


@pytest.mark.parametrize("size", [0, -3])
def test_blocks_need_a_pattern(data, size):
    with pytest.raises(ValueError, match="at least 1"):
        direct.over(data, PROCESSORS["moments"], block=size)


def test_squares_are_complete_and_at_their_middle():
    squares = direct.in_squares(KEPT, 2)
    assert 0.6 * len(K) < squares.pixels.size < len(K)
    k = dict(zip(INDEX.tolist(), K, strict=True))
    members = np.array([[k[pixel] for pixel in square] for square in squares.pixels.tolist()])
    np.testing.assert_allclose(members.mean(1), squares.k, atol=1e-12)
    extent = np.ptp(members, axis=1)
    np.testing.assert_allclose(extent, np.broadcast_to(sines.GRID.dk, extent.shape))


def test_a_disc_off_the_detector_is_refused(data):
    with pytest.raises(ValueError, match="check semiangle_mrad"):
        direct.bright_field_of(data, 0.1)


def test_bright_field_leaves_masked_pixels_out(data):
    mask = np.ones(sines.GRID.shape, bool)
    mask[12, 13] = False
    counts = np.fft.fftshift(data.patterns(0, np.arange(N)), axes=(1, 2))
    hidden = jp.Dataset(counts, PLACES, sines.GRID, mask, bad_data="keep")
    sizes = [len(direct.bright_field_of(d, sines.SEMIANGLE).pixels) for d in (data, hidden)]
    assert sizes[1] == sizes[0] - 1
