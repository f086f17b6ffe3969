import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho.physics import detection

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def pattern(shape=(12, 8), seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(0, 5, shape))


def test_no_blur_changes_nothing():
    np.testing.assert_array_equal(detection.gaussian_mtf((12, 8), 0.0), 1.0)
    for mtf in (detection.gaussian_mtf((12, 8), 0.0), detection.radial_mtf((12, 8), jnp.ones(5))):
        np.testing.assert_allclose(detection.filter_pattern(pattern(), mtf), pattern(), atol=1e-12)


@pytest.mark.parametrize("shape", [(12, 8), (9, 7)])
def test_blur_keeps_the_counts(shape):
    for mtf in (
        detection.gaussian_mtf(shape, 1.3),
        detection.radial_mtf(shape, jnp.array([1.0, 0.7, 0.2])),
    ):
        blurred = detection.filter_pattern(pattern(shape), mtf)
        assert blurred.shape == shape
        assert float(blurred.sum()) == pytest.approx(float(pattern(shape).sum()), rel=1e-12)


def test_gaussian_blur_of_a_point_is_a_gaussian():
    point = jnp.zeros((32, 32)).at[0, 0].set(1.0)
    sigma = 1.7
    distance = np.fft.fftfreq(32, 1 / 32)
    expected = np.exp(-(distance[:, None] ** 2 + distance[None, :] ** 2) / (2 * sigma**2)) / (
        2 * np.pi * sigma**2
    )
    spread = detection.filter_pattern(point, detection.gaussian_mtf((32, 32), sigma))
    np.testing.assert_allclose(spread, expected, atol=1e-6)


def test_measured_mtf_runs_from_zero_to_nyquist_and_on():
    mtf = detection.radial_mtf((16, 16), jnp.array([1.0, 0.6, 0.2]))
    assert float(mtf[0, 4]) == pytest.approx(0.6)
    assert float(mtf[2, 0]) == pytest.approx(0.8)
    assert float(mtf[8, 0]) == pytest.approx(0.2)
    assert float(mtf[8, 8]) == pytest.approx(0.2)  # beyond Nyquist


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_summed_pixels_against_a_loop(factor):
    fine = np.asarray(pattern((12, 24)))
    result = detection.sum_pixels(jnp.asarray(fine), factor)
    assert result.shape == (12 // factor, 24 // factor)
    for v in range(result.shape[0]):
        for u in range(result.shape[1]):
            rows = [(v * factor - factor // 2 + i) % 12 for i in range(factor)]
            columns = [(u * factor - factor // 2 + i) % 24 for i in range(factor)]
            assert float(result[v, u]) == pytest.approx(
                fine[np.ix_(rows, columns)].sum(), rel=1e-12
            )


@pytest.mark.parametrize("shape", [(6, 4), (7, 3), (12, 8)])
def test_crop_keeps_what_lies_around_the_middle(shape):
    whole = np.asarray(pattern())
    middle = np.fft.fftshift(whole)
    top, left = 6 - shape[0] // 2, 4 - shape[1] // 2
    expected = np.fft.ifftshift(middle[top : top + shape[0], left : left + shape[1]])
    np.testing.assert_array_equal(detection.crop(jnp.asarray(whole), shape), expected)


LINEAR = {
    "blur": lambda p: detection.filter_pattern(p, detection.gaussian_mtf(p.shape, 0.8)),
    "sum": lambda p: detection.sum_pixels(p, 2),
    "crop": lambda p: detection.crop(p, (5, 6)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_adjoints_are_exact(name):
    image, transpose = jax.vjp(LINEAR[name], pattern(seed=1))
    other = pattern(image.shape, seed=2)
    assert float(jnp.vdot(other, image)) == pytest.approx(
        float(jnp.vdot(transpose(other)[0], pattern(seed=1))), rel=1e-12
    )
