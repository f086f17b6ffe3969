"""Likelihood of the optics for scans coarser than the bright field's limit, all aliases together.

The transform of a scan at Q holds all frequencies Q + K that differ by the reciprocal lattice K of
its positions: G(k, Q) = Σ_K iΦ(Q+K)Γ(k, Q+K) − A(Q+K)Γ′(k, Q+K) + noise, with phase and amplitude
as in `weak_object_likelihood`. One by one, as there, every alias disturbs the others, and draws the
defocus towards zero by a few percent; together they are the unknowns of one linear model per Q.
With Gaussian priors of variances D in rings of |Q + K| and white noise σ², W = U√D/σ and g = G/σ,
the evidence of the optics and its derivatives are

  ln L = Σ_Q g*W x − ln det A,  A = 1 + W*W,  x = A⁻¹W*g,
  d ln L = 2 Re Σ_Q tr[(x(g − Wx)* − A⁻¹W*) dW].

D and σ² are those of largest likelihood by expectation maximisation (Dempster, Laird & Rubin, J. R.
Stat. Soc. B 39, 1 (1977)).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from .aliases import AliasedSidebands
from .sidebands import RINGS
from .weak_object_likelihood import Mirror, Theta, lens, true_frequencies

AT_ONCE = 8  # frequencies, of which all U are in memory
ROUNDS = 8  # of expectation maximisation
FIRST = 0.02, 0.005, 0.9  # variances of phase, amplitude and noise before, of images of variance 1


class Spectra(NamedTuple):
    """Variances of phase and amplitude in rings of |Q + K|, and of the noise."""

    phase: Float[Array | np.ndarray, " ring"]
    amplitude: Float[Array | np.ndarray, " ring"]
    noise: Float[Array | np.ndarray, ""] | float


class Posterior(NamedTuple):
    """Of the unknowns of every frequency at given optics and spectra."""

    evidence: Float[Array | np.ndarray, " q"]  # ln L
    slopes: Float[Array | np.ndarray, "q d"]  # its derivatives along directions of θ
    power: Float[Array | np.ndarray, "q n"]  # E|x|² of phases and amplitudes, in units of D
    left: Float[Array | np.ndarray, " q"]  # E|g − Wx|²


class _Solved(NamedTuple):
    """Posterior of the unknowns of one frequency."""

    evidence: Float[Array, ""]
    mean: Complex[Array, " n"]  # x
    inverse: Complex[Array, "n n"]  # A⁻¹


def _columns(theta, mirror, bands, aliases, valid):
    """U of one frequency, real and imaginary parts [cell, 2·alias], without what cells share."""
    q = true_frequencies(theta, mirror, aliases)
    wave, pupil = lens(theta, bands.wavelength, bands.radius, bands.edge)
    y, x = bands.k[:, 0, None], bands.k[:, 1, None]
    a, b = (bands.root[:, None] * part for part in wave(y, x))
    c, d = pupil(y - q[0], x - q[1])
    e, f = pupil(y + q[0], x + q[1])
    left = a * c + b * d, a * d - b * c  # P*(k)P(k−Q)
    right = a * e + b * f, b * e - a * f  # P(k)P*(k+Q)
    real = jnp.concatenate([right[1] - left[1], -left[0] - right[0]], 1)  # of iΓ and −Γ′
    imaginary = jnp.concatenate([left[0] - right[0], -left[1] - right[1]], 1)
    both = jnp.stack([real, imaginary]) * jnp.concatenate([valid, valid])
    common = jnp.einsum("c,pcn->pn", bands.root, both) / jnp.sum(bands.root**2)
    return both - bands.root[:, None] * common[:, None]


def _scale(spectra, ring):
    """√D/σ of the unknowns of one frequency."""
    variance = jnp.concatenate([spectra.phase[ring], spectra.amplitude[ring]])
    return jnp.sqrt(variance / spectra.noise)


def _solved(w, g):
    """Posterior for W and g, both of real and imaginary parts."""
    n = w.shape[-1]
    flat = jnp.concatenate([w[0], w[1]], 1)
    square = flat.T @ flat
    across = square[:n, n:]
    power = lax.complex(square[:n, :n] + square[n:, n:], across - across.T)
    at = flat.T @ g.T
    b = lax.complex(at[:n, 0] + at[n:, 1], at[:n, 1] - at[n:, 0])
    inverse, log_det = _inverse(power + jnp.eye(n, dtype=power.dtype))
    x = inverse @ b
    return _Solved(jnp.real(jnp.vdot(b, x)) - log_det, x, inverse)


def _inverse(a):
    """Inverse and ln det of a positive matrix by the sweep operator (Goodnight 1979).

    Many small matrices: the threads of a library for large ones wait for each other.
    """

    def _sweep(k, swept):
        a, log_det = swept
        pivot = a[k, k].real
        row = a[k] / pivot
        column = a[:, k]
        rest = a - column[:, None] * row
        rest = rest.at[k].set(row).at[:, k].set(-column / pivot).at[k, k].set(1 / pivot)
        return rest, log_det + jnp.log(pivot)

    return lax.fori_loop(0, len(a), _sweep, (a, jnp.zeros((), a.real.dtype)))


@eqx.filter_jit
def aliased_posterior(
    theta: Theta,
    directions: Float[Array, "d p"],
    mirror: Mirror,
    bands: AliasedSidebands,
    spectra: Spectra,
) -> Posterior:
    """All that evidence, its derivatives and the next spectra are made of, in one program."""
    sigma = jnp.sqrt(spectra.noise)

    def _of(one):
        g, aliases, valid, ring = one

        def _weighted(step):
            u = _columns(theta + step @ directions, mirror, bands, aliases, valid)
            return u * _scale(spectra, ring)

        w, pull = jax.vjp(_weighted, jnp.zeros(len(directions), theta.dtype))
        g = g / sigma
        solved = _solved(w, g)
        complex_w = lax.complex(w[0], w[1])
        rest = lax.complex(g[0], g[1]) - complex_w @ solved.mean
        cotangent = rest[:, None] * jnp.conj(solved.mean) - complex_w @ solved.inverse
        (slopes,) = pull(2 * jnp.stack([cotangent.real, cotangent.imag]))
        variance = jnp.diag(solved.inverse).real
        power = jnp.abs(solved.mean) ** 2 + variance
        left = jnp.sum(jnp.abs(rest) ** 2) + jnp.sum(1 - variance)  # tr W*W A⁻¹ = n − tr A⁻¹
        return Posterior(solved.evidence, slopes, power, left)

    ones = jnp.stack([bands.g.real, bands.g.imag], 1), bands.aliases, bands.valid, bands.alias_ring
    return lax.map(_of, ones, batch_size=AT_ONCE)


def _posterior(theta, directions, mirror, bands, spectra) -> Posterior:
    """The same of NumPy's arrays."""
    dtype = bands.k.dtype
    here, along, turned = (jnp.asarray(a, dtype) for a in (theta, directions, mirror))
    spectra = Spectra(*(jnp.asarray(a, dtype) for a in spectra))
    found = aliased_posterior(here, along, turned, bands, spectra)
    return Posterior(*(np.asarray(a, float) for a in found))


def aliased_evidence_and_scores(
    theta: Float[np.ndarray, " p"],
    directions: Float[np.ndarray, "d p"],
    mirror: Float[np.ndarray, "2 2"],
    bands: AliasedSidebands,
    spectra: Spectra,
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "q d"]]:
    """ln L of every frequency, and its derivatives along `directions` of θ."""
    found: Any = _posterior(theta, directions, mirror, bands, spectra)
    used = np.asarray(bands.used)
    return found.evidence * used, found.slopes * used[:, None]


def likely_spectra(
    theta: Float[np.ndarray, " p"], mirror: Float[np.ndarray, "2 2"], bands: AliasedSidebands
) -> Spectra:
    """Spectra of largest likelihood at given optics."""
    used = np.asarray(bands.used, float)
    cells = float(np.sum(np.asarray(bands.root) > 0))
    ring = np.asarray(bands.alias_ring)
    counted = np.asarray(bands.valid) * used[:, None]
    size = np.maximum(np.bincount(ring.ravel(), counted.ravel(), RINGS), 1.0)

    def _ring_mean(values):
        return np.bincount(ring.ravel(), (values * counted).ravel(), RINGS) / size

    phase, amplitude, noise = FIRST
    spectra = Spectra(np.full(RINGS, phase), np.full(RINGS, amplitude), noise)
    for _ in range(ROUNDS):
        found = _posterior(theta, np.eye(len(theta)), mirror, bands, spectra)
        of_phase, of_amplitude = np.split(found.power, 2, axis=1)
        spectra = Spectra(
            _ring_mean(of_phase * spectra.phase[ring]),
            _ring_mean(of_amplitude * spectra.amplitude[ring]),
            float(spectra.noise * np.sum(found.left * used) / (cells * used.sum())),
        )
    return spectra
