"""Small simulated scans of soft blobs by a defocused probe, as a microscopist would bring them."""

import jax.numpy as jnp
import numpy as np

import jaxptycho as jp
from jaxptycho.model import probe_positions

ABOUT = {"semiangle_mrad": 25.0, "defocus_angstrom": 120.0}
GRID = jp.Grid((48, 48), 0.3, 80.0)
STEP = 2.1  # Å
SIDE = 12  # positions


def blobs(
    side=SIDE, step=STEP, dose=2e4, seed=0, strength=0.4, moved=(0, 0), defocus=120.0, lattice=None
):
    """Counts [shot, y, x] and positions [Å] of a scan over blobs of phase, at random or `lattice` pixels apart."""
    (n, _), pixel = GRID.shape, GRID.pixel[0]
    k = np.fft.fftfreq(n, pixel)
    k2 = k[:, None] ** 2 + k**2
    inside = np.sqrt(k2) * GRID.wavelength <= 0.025
    lens = inside * np.exp(1j * np.pi * GRID.wavelength * k2 * defocus)
    probe = np.fft.fftshift(np.fft.ifft2(lens, norm="ortho"))
    probe /= np.linalg.norm(probe)
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1).reshape(-1, 2) * step
    corners = np.rint(places / pixel).astype(int)
    size = corners.max() + n
    y, x = np.mgrid[:size, :size]
    centres = rng.uniform(0, size, (90, 2))
    if lattice is not None:
        rows = np.stack(np.meshgrid(*[np.arange(0, size, lattice)] * 2, indexing="ij"), -1).reshape(
            -1, 2
        )
        centres = rows + rng.normal(0, 0.5, rows.shape)
    phase = sum(strength * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in centres)
    waves = (probe * np.exp(1j * phase[a : a + n, b : b + n]) for a, b in corners)
    patterns = [np.abs(np.fft.fft2(wave, norm="ortho")) ** 2 * dose for wave in waves]
    shown = np.roll(np.fft.fftshift(np.stack(patterns), axes=(1, 2)), moved, (1, 2))
    counts = rng.poisson(shown)
    return counts.astype(np.uint16 if counts.max() < 2**16 else np.uint32), places


SMALL = jp.Grid((16, 16), 0.5, 80.0)
ABERRATIONS = {"defocus": 60.0}


def sum_of_blobs(y, x, spots):
    """Sum of Gaussians around `spots`, at places of any shape."""
    return sum(0.4 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 8) for a, b in spots)


def blob_model(side=5, seed=0, dose=1e4):
    """A scan of blobs by an aberrated probe."""
    rng = np.random.default_rng(seed)
    steps = np.arange(side) * 1.2
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    places = places + rng.uniform(-0.2, 0.2, places.shape)
    size = 34
    y, x = np.mgrid[:size, :size].astype(float)
    phase = sum_of_blobs(y, x, rng.uniform(4, size - 4, (25, 2)))
    specimen = jp.SliceStack(
        jnp.asarray(phase[None]), None, jnp.zeros(()), jnp.asarray([-6.0, -6.0])
    )
    probe = jp.AberratedProbe(0.02, ABERRATIONS, dose=dose)
    detector = jp.Descanned(jnp.zeros(2))
    return jp.Model(
        probe, specimen, jp.FreeScan(jp.PerShot(jnp.asarray(places))), SMALL, detector=detector
    )


def measured_blobs(model, places=None, seed=None):
    """Patterns of a model at recorded `places`, with the noise of counts if a seed is given."""
    true = probe_positions(model)
    patterns = np.asarray(jp.predict(model, np.arange(len(true))))
    counts = patterns if seed is None else np.random.default_rng(seed).poisson(patterns)
    shown = np.fft.fftshift(counts.astype(np.float32), (1, 2))
    return jp.Dataset(shown, true if places is None else places, SMALL, frame=(0.0, 0.0))
