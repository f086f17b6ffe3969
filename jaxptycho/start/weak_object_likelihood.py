"""Likelihood of optics and orientation for a weak object with random spectra.

An object 1 + iφ − a, of a phase φ and an amplitude a of which both are weak, gives the images
G(k, Q) = iΦ(Q)Γ(k, Q) − A(Q)Γ′(k, Q), with Γ = P*(k)P(k−Q) − P(k)P*(k+Q) (`direct.transfer`) and
Γ′ the sum of the same terms. A phase of any strength has the amplitude φ²/2 + … of its e^{iφ}:
leaving it out draws the defocus of strong phases by several percent. With Gaussian Φ and A of
variances S, S′ in rings of |Q|, and white noise σ², the evidence of the optics θ is

  ln L(θ) = Σ_Q b*M⁻¹b/σ² − ln det(1 + D U*U/σ²),  M = σ²D⁻¹ + U*U,

U = (iΓ, −Γ′) as columns over k, b = U*G, D = diag(S, S′). S and S′ follow from moments of b.
Without an amplitude and for S → ∞ it is J(θ) = Σ_Q |ΣΓ*G|²/Σ|Γ|², the part of Σ|G|² that a weak
phase of largest likelihood explains (variable projection).

θ and rotation by 180° with all aberrations negated give the same images of −φ(−r), for a phase of
any strength: e^{iφ(r)} and the probe become complex conjugates at −r, and so does the exit wave.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from ..physics.aberrations import phase_at
from ..physics.transmission import transmission_function
from .sidebands import RINGS, Sidebands, parts_of

NAMES = ("C10", "C12a", "C12b", "C21a", "C21b", "C23a", "C23b", "C30")
CHUNK = 32  # cells at once
STEP = 0.03  # of a direction, for derivatives
Theta = Float[Array, " p"]  # aberrations of NAMES [Å], rotation of the scan [rad]
Mirror = Float[Array, "2 2"]  # matrix on (y, x) that acts before the rotation
Parts = tuple[Array, Array]  # real and imaginary
Function = Callable[[Array, Array], Parts]  # of (y, x)


class Projections(NamedTuple):
    """Sums over cells at every Q: U*G and U*U, and the phase's own part of both.

    Of U without what all cells share, which the images lack (`image_spectra`).
    """

    phase: Complex[Array | np.ndarray, "*n q"]  # Σ −iΓ*G
    phase_power: Float[Array | np.ndarray, "*n q"]  # Σ |Γ|²
    amplitude: Complex[Array | np.ndarray, "*n q"]  # Σ −Γ′*G
    amplitude_power: Float[Array | np.ndarray, "*n q"]  # Σ |Γ′|²
    cross: Complex[Array | np.ndarray, "*n q"]  # Σ iΓ*Γ′


def true_frequencies(
    theta: Theta, mirror: Mirror, q: Float[Array | np.ndarray, "n 2"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Frequencies (y, x) of the positions after `mirror` and the rotation.

    The rotation is counter-clockwise as seen with y downwards.
    """
    cos, sin = jnp.cos(theta[-1]), jnp.sin(theta[-1])
    y, x = (q @ mirror.T).T
    return cos * y - sin * x, sin * y + cos * x


def lens(
    theta: Theta,
    wavelength: Float[Array | np.ndarray, ""],
    radius: Float[Array | np.ndarray, ""],
    edge: Float[Array | np.ndarray, ""],
) -> tuple[Function, Function]:
    """Wave of the aberrations at frequencies y, x [1/Å], and the same behind the aperture.

    Real and imaginary parts apart, which compilers vectorise.
    """
    aberrations: dict[str, Any] = dict(zip(NAMES, theta[:-1], strict=True))

    def wave(y: Array, x: Array) -> Parts:
        chi = phase_at(aberrations, y, x, jnp.asarray(wavelength))
        transmitted = transmission_function(-chi, jnp.zeros_like(chi))
        return transmitted.real, transmitted.imag

    def pupil(y: Array, x: Array) -> Parts:
        distance = jnp.sqrt(y**2 + x**2 + 1e-30)
        amplitude = jnp.clip((radius - distance) / edge + 0.5, 0.0, 1.0)
        real, imaginary = wave(y, x)
        return amplitude * real, amplitude * imaginary

    return wave, pupil


def projections(theta: Theta, mirror: Mirror, bands: Sidebands) -> Projections:
    """U*G and U*U of optics `theta`."""
    q = true_frequencies(theta, mirror, bands.q)
    wave, pupil = lens(theta, bands.wavelength, bands.radius, bands.edge)

    def _add(total, one):
        real, imaginary, *column = one
        y, x, root, *here = (values[:, None] for values in column)
        below = pupil(y - q[0], x - q[1])
        above = pupil(y + q[0], x + q[1])
        # P*(k)P(k−Q) and P(k)P*(k+Q)
        left = (
            here[0] * below[0] + here[1] * below[1],
            here[0] * below[1] - here[1] * below[0],
        )
        right = (
            here[0] * above[0] + here[1] * above[1],
            here[1] * above[0] - here[0] * above[1],
        )
        c, d = left[0] - right[0], left[1] - right[1]  # Γ
        e, f = left[0] + right[0], left[1] + right[1]  # Γ′
        terms = (
            imaginary * c - real * d,
            -real * c - imaginary * d,
            c**2 + d**2,
            -real * e - imaginary * f,
            real * f - imaginary * e,
            e**2 + f**2,
            d * e - c * f,
            c * e + d * f,
            root * c,
            root * d,
            root * e,
            root * f,
        )
        return tuple(t + jnp.sum(term, 0) for t, term in zip(total, terms, strict=True)), None

    zero = jnp.zeros(len(bands.q), bands.root.dtype)
    y, x = bands.k.T
    probe = (bands.root * part for part in wave(y, x))
    # separate real and imaginary parts, which compilers vectorise
    g: Any = bands.g
    cells = (g.real, g.imag, y, x, bands.root, *probe)
    chunks = jax.tree.map(lambda a: a.reshape(-1, CHUNK, *a.shape[1:]), cells)
    sums = lax.scan(_add, (zero,) * 12, chunks)[0]
    pixels = jnp.sum(bands.root**2)
    common = lax.complex(sums[8], sums[9]), lax.complex(sums[10], sums[11])
    return Projections(
        lax.complex(sums[0], sums[1]),
        sums[2] - _square(common[0]) / pixels,
        lax.complex(sums[3], sums[4]),
        sums[5] - _square(common[1]) / pixels,
        lax.complex(sums[6], sums[7]) - 1j * jnp.conj(common[0]) * common[1] / pixels,
    )


@eqx.filter_jit
def _compiled_projections(theta, mirror, bands):
    return projections(theta, mirror, bands)


def projections_of(
    thetas: Float[np.ndarray, "n p"], mirror: Float[np.ndarray, "2 2"], bands: Sidebands
) -> Projections:
    """`projections` [n, q] of several optics, in double precision.

    One program for some of the frequencies is compiled, and all else is left to NumPy.
    """
    dtype = bands.k.dtype
    parts = parts_of(bands)
    turned = jnp.asarray(mirror, dtype)
    rows = [
        [_compiled_projections(jnp.asarray(theta, dtype), turned, part) for part in parts]
        for theta in thetas
    ]
    joined = (np.stack([np.concatenate(one) for one in column]) for column in _columns(rows))
    return Projections(*(one.astype(np.result_type(one, np.float64)) for one in joined))


def _columns(rows: list[list[Projections]]) -> list[list[list[np.ndarray]]]:
    """Arrays [part] of every row, for each of the projections."""
    names = Projections._fields
    return [[[np.asarray(getattr(p, n)) for p in row] for row in rows] for n in names]


def ring_sum(values: Any, bands: Sidebands) -> Any:
    """Sums over rings of |Q|, the last axis of `values`."""
    member = bands.ring[:, None] == np.arange(RINGS)
    return (values * bands.used) @ member.astype(values.dtype)


def log_evidence(
    theta: Theta, mirror: Mirror, bands: Sidebands, variance: Float[Array, " ring"]
) -> Float[Array, " q"]:
    """ln L of every frequency, relative to no object at all; `variance` is σ² of every ring."""
    return evidence_of(projections(theta, mirror, bands), bands, variance)


def evidence_of(sums: Any, bands: Sidebands, variance: Any) -> Any:
    """`log_evidence` of projections, of NumPy or of JAX."""
    numbers = sums.phase.__array_namespace__()
    noise = variance[bands.ring]
    m = _posterior(sums, noise, bands)
    mixed = (sums.phase.conj() * sums.cross * sums.amplitude).real
    quadratic = m.signal * m.p2 * _square(sums.phase) + m.amplitude * m.p * _square(sums.amplitude)
    each = (quadratic - 2 * m.signal * m.amplitude * mixed) / (noise * m.det)
    return (each - numbers.log(m.det / noise**2)) * bands.used


class _Posterior(NamedTuple):
    """S, S′, diagonal and determinant of σ² + √D U*U √D at every Q."""

    signal: Any
    amplitude: Any
    p: Any
    p2: Any
    det: Any


def _posterior(sums, noise, bands):
    """With S and S′ from moments in rings: E|b|² = σ²u + S u² + S′|cross|²."""
    numbers = sums.phase.__array_namespace__()

    def _moment(b, power, other):
        excess = ring_sum(_square(b) - noise * power - other, bands)
        mean = excess / numbers.maximum(ring_sum(power**2, bands), 1e-20)
        return numbers.maximum(mean, 0.0)[..., bands.ring]

    signal = _moment(sums.phase, sums.phase_power, 0.0)
    leak = signal * _square(sums.cross)
    amplitude = _moment(sums.amplitude, sums.amplitude_power, leak)
    p = noise + signal * sums.phase_power
    p2 = noise + amplitude * sums.amplitude_power
    det = numbers.maximum(p * p2 - signal * amplitude * _square(sums.cross), noise**2)
    return _Posterior(signal, amplitude, p, p2, det)


def _square(z):
    return z.real**2 + z.imag**2


def evidence_along(
    thetas: Float[np.ndarray, "n p"],
    mirror: Float[np.ndarray, "2 2"],
    bands: Sidebands,
    variance: Float[np.ndarray, " ring"],
) -> Float[np.ndarray, " n"]:
    """ln L of several optics."""
    return evidence_of(projections_of(thetas, mirror, bands), bands, variance).sum(-1)


def evidence_and_scores(
    theta: Float[np.ndarray, " p"],
    directions: Float[np.ndarray, "d p"],
    mirror: Float[np.ndarray, "2 2"],
    bands: Sidebands,
    variance: Float[np.ndarray, " ring"],
) -> tuple[Float[np.ndarray, " q"], Float[np.ndarray, "q d"]]:
    """ln L of every frequency, and its derivatives along `directions` of θ.

    By central differences: no further program is compiled, which takes longer than all of them.
    """
    moves = STEP * directions
    thetas = np.concatenate([theta[None], theta + moves, theta - moves])
    here, *around = evidence_of(projections_of(thetas, mirror, bands), bands, variance)
    after, before = np.split(np.array(around), 2)
    return here, (after - before).T / (2 * STEP)


def explained_along(
    thetas: Float[np.ndarray, "n p"], mirror: Float[np.ndarray, "2 2"], bands: Sidebands
) -> Float[np.ndarray, " n"]:
    """J of several optics: fraction of the images' variance that a weak phase explains."""
    sums: Any = projections_of(thetas, mirror, bands)
    power = sums.phase_power
    seen = power > 1e-6 * power.max(-1, keepdims=True)
    j = np.where(seen, _square(sums.phase) / np.maximum(power, 1e-20), 0.0)
    return np.sum(j * bands.used, -1) / max(float(np.sum(bands.power * bands.used)), 1e-30)


def ring_variance(
    theta: Float[np.ndarray, " p"], mirror: Float[np.ndarray, "2 2"], bands: Sidebands
) -> Float[np.ndarray, " ring"]:
    """σ² of every ring: what phase and amplitude of largest likelihood leave, per cell."""
    sums: Any = Projections(*(one[0] for one in projections_of(theta[None], mirror, bands)))
    p, p2 = sums.phase_power, sums.amplitude_power
    det = p * p2 - _square(sums.cross)
    mixed = (sums.phase.conj() * sums.cross * sums.amplitude).real
    both = p2 * _square(sums.phase) + p * _square(sums.amplitude) - 2 * mixed
    clear = det > 1e-3 * p * p2
    alone = _square(sums.phase) / np.maximum(p, 1e-20)
    found = np.where(clear, both / np.where(clear, det, 1.0), alone)
    cells = np.sum(bands.root > 0) - 2
    free = np.maximum(cells * ring_sum(bands.used, bands), 1.0)
    return np.maximum(ring_sum(bands.power - found, bands) / free, 1e-12)


def phase_spectrum(
    theta: Float[np.ndarray, " p"],
    mirror: Float[np.ndarray, "2 2"],
    bands: Sidebands,
    variance: Float[np.ndarray, " ring"],
) -> Complex[np.ndarray, " q"]:
    """Expected phase Φ(Q) given the images."""
    sums: Any = Projections(*(one[0] for one in projections_of(theta[None], mirror, bands)))
    m = _posterior(sums, variance[bands.ring], bands)
    leak = m.signal * m.amplitude * sums.cross * sums.amplitude
    return bands.used * (m.signal * m.p2 * sums.phase - leak) / m.det
