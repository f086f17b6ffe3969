"""Pixel-wise errors of an image or a volume against a true one.

Remove the gauge first (`analysis.gauge`). `where` is True for pixels to compare; `span` is the
range of values of full contrast, by default that of the true image.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from ..physics.types import Numbers

SIGMA = 1.5  # pixels, of the Gaussian window of Wang et al.
RADIUS = 5  # pixels, of this window of 11 pixels


def nrmse(image: Numbers, truth: Numbers, where: np.ndarray | None = None) -> float:
    """Root mean square error over the root mean square of the truth: √(Σ|a − b|² / Σ|b|²)."""
    image, truth = _inside(where, image, truth)
    return float(np.linalg.norm(image - truth) / np.linalg.norm(truth))


def psnr(
    image: Numbers, truth: Numbers, span: float | None = None, where: np.ndarray | None = None
) -> float:
    """Peak signal-to-noise ratio [dB]: 10 log₁₀(span² / mean|a − b|²)."""
    image, truth = _inside(where, image, truth)
    error = np.mean(np.abs(image - truth) ** 2)
    peak = np.ptp(truth) if span is None else span
    return float(10 * np.log10(peak**2 / error)) if error > 0 else float("inf")


def ssim(
    image: Numbers, truth: Numbers, span: float | None = None, where: np.ndarray | None = None
) -> float:
    """Structural similarity, 1 for equal images: mean of `ssim_map` without a border."""
    shape = _same(image, truth)
    if min(shape) <= 2 * RADIUS:
        raise ValueError(
            f"images of {shape} pixels are too small for SSIM; it requires more than {2 * RADIUS} "
            "a side"
        )
    inner = (slice(RADIUS, -RADIUS),) * len(shape)
    similar = ssim_map(image, truth, np.ptp(truth) if span is None else span)[inner]
    (similar,) = _inside(None if where is None else where[inner], similar)
    return float(np.mean(similar))


def ssim_map(image: Numbers, truth: Numbers, span: float) -> np.ndarray:
    """Structural similarity in the window around every pixel.

    (2 m_a m_b + C₁)(2 s_ab + C₂) / ((m_a² + m_b² + C₁)(s_a² + s_b² + C₂)), means and covariances
    under a Gaussian of 1.5 pixels, C₁ = (0.01 span)², C₂ = (0.03 span)²
    (Wang et al., IEEE Trans. Image Process. 13, 600 (2004)).
    """
    a, b = np.asarray(image, float), np.asarray(truth, float)

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, SIGMA, radius=RADIUS)

    mean_a = mean(a)
    mean_b = mean(b)
    variances = mean(a**2) - mean_a**2 + mean(b**2) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1 = (0.01 * span) ** 2
    c2 = (0.03 * span) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return alike / ((mean_a**2 + mean_b**2 + c1) * (variances + c2))


def _same(image, truth) -> tuple[int, ...]:
    if np.shape(image) != np.shape(truth):
        raise ValueError(
            f"an image of {np.shape(image)} pixels came with a truth of {np.shape(truth)}; bring "
            "both to one grid"
        )
    return np.shape(truth)


def _inside(where, *images) -> tuple[np.ndarray, ...]:
    _same(images[0], images[-1])
    if where is None:
        return tuple(np.asarray(image) for image in images)
    if not np.any(where):
        raise ValueError("no pixel is left to compare; `where` is True where pixels count")
    return tuple(np.asarray(image)[where] for image in images)
