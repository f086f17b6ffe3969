"""Probes: the illumination of the specimen."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..physics import aberrations, waves
from ..physics.aberrations import cartesian
from ..physics.grids import Grid
from ..physics.modes import make_modes, source_modes, with_dose
from ..physics.types import Intensity, Kernel, Pair, PyTree, Scalar, Waves
from .indexed import PerShot, PerView, Varying, axis_size, map_varying, plain, vmap_shots

Basis = Complex[Array, "j m y x"]
Moments = Complex[Array, "j j"] | Float[Array, "j j"]


class AbstractProbe(eqx.Module):
    """Illumination of the specimen. A kind of probe needs only `spectrum`.

    The |…|² of its modes sum to the dose of a shot. Every other method has a default, or raises
    ValueError in one sentence where the answer depends on the kind.
    """

    pixelwise: ClassVar[tuple[str, ...]] = ()  # fields of modes that are free in every pixel

    @property
    def one_wave(self) -> bool:
        """True if it is a single wave, to which `with_modes` adds others."""
        return False

    @abc.abstractmethod
    def spectrum(self, grid: Grid) -> Waves:
        """Spectra of the incoherent modes [√quanta], the probe's centre at the origin."""

    def mean_dose(self, grid: Grid) -> Scalar:
        """Dose Σ|ψ|² [quanta per shot], the mean over shots and views."""

        def dose(probe: "AbstractProbe") -> Scalar:
            return jnp.sum(waves.intensity(probe.spectrum(grid)))

        return jnp.mean(vmap_shots(dose, self))

    def scale_dose(self, factor: Scalar) -> "AbstractProbe":
        """The probe with `factor` times its dose."""
        raise ValueError(
            f"the dose of a {type(self).__name__} cannot be scaled; define its `scale_dose`, or "
            "leave this constraint out"
        )

    def propagate(self, grid: Grid, distance: Scalar) -> "AbstractProbe":
        """The probe in the plane `distance` [Å] further along the beam."""
        if axis_size(self, PerShot) > 1:
            raise ValueError(
                f"a {type(self).__name__} that differs from shot to shot cannot be propagated; "
                "define its `propagate`"
            )
        kernel = waves.fresnel(grid, distance)

        def pixels(probe: "AbstractProbe") -> Waves:
            behind = waves.inverse_fourier(kernel * probe.spectrum(grid))
            return jnp.fft.fftshift(behind, axes=(-2, -1))

        if axis_size(self, PerView) == 1:
            return PixelProbe(pixels(self))
        return PixelProbe(PerView(vmap_shots(pixels, self)))

    def reduce_waves(self, function: Callable[[Basis, Moments], PyTree]) -> PyTree:
        """`function(waves [j m y x], moments [j j])`, view by view where views differ.

        `moments` is the mean of c_j c*_j′ over the shots; a probe without coefficients has one
        basis wave.
        """
        raise self._without_waves()

    def map_waves(self, function: Callable[[Basis, Moments], Basis]) -> "AbstractProbe":
        """The probe with `function(waves [j m y x], moments [j j])` in place of its waves."""
        raise self._without_waves()

    def map_weights(self, change: Callable[[Array], Array]) -> "AbstractProbe":
        """The probe with `change(weights [shot, j])` in place of the weights of its waves."""
        raise ValueError(
            f"a {type(self).__name__} has no weights that differ from shot to shot; use a "
            "RelaxedProbe, or leave this constraint out"
        )

    def with_modes(self, modes: int) -> "AbstractProbe":
        """The probe with `modes` incoherent modes, completed or cut; its power is unchanged."""
        raise ValueError(
            f"only a PixelProbe can change its modes; this model has {type(self).__name__}"
        )

    def summary(self) -> dict[str, str]:
        """Rows that the probe adds to the table of a result, by name."""
        return {}

    def _without_waves(self) -> ValueError:
        return ValueError(
            f"{type(self).__name__} has no free waves; use a PixelProbe or a RelaxedProbe, or "
            "leave this constraint out"
        )


class PixelProbe(AbstractProbe):
    """One complex number per pixel and mode, the probe's centre at [N//2, N//2]."""

    waves: Varying[Waves]  # √quanta
    pixelwise: ClassVar = ("waves",)

    @property
    def one_wave(self) -> bool:
        return eqx.is_array(self.waves) and self.waves.shape[0] == 1

    def spectrum(self, grid: Grid) -> Waves:
        return waves.fourier(jnp.fft.ifftshift(self.waves, axes=(-2, -1)))

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"waves": rms_amplitude(self.waves)}

    def mean_dose(self, grid: Grid) -> Scalar:
        return _mean_dose(self)

    def scale_dose(self, factor: Scalar) -> "PixelProbe":
        return _scale_waves(self, factor)

    def propagate(self, grid: Grid, distance: Scalar) -> "PixelProbe":
        return _propagate_waves(self, grid, distance)

    def reduce_waves(self, function: Callable[[Basis, Moments], PyTree]) -> PyTree:
        def reduce(modes: Waves) -> PyTree:
            return function(modes[None], jnp.ones((1, 1), modes.real.dtype))

        return map_varying(reduce, self.waves)

    def map_waves(self, function: Callable[[Basis, Moments], Basis]) -> "PixelProbe":
        def change(basis: Basis, moments: Moments) -> Array:
            return function(basis, moments).astype(basis.dtype)[0]

        return PixelProbe(self.reduce_waves(change))

    def with_modes(self, modes: int) -> "PixelProbe":
        if self.waves.shape[0] == modes:
            return self
        power = jnp.sum(jnp.abs(self.waves) ** 2)
        return PixelProbe(with_dose(make_modes(self.waves, modes), power))


class RelaxedProbe(AbstractProbe):
    """Probe ψ_p = Σ_j c_{p,j} ψ_j: a few basis waves with coefficients for every shot.

    Orthogonal probe relaxation (Odstrčil et al., Optics Express 24, 8360 (2016)).
    """

    waves: Varying[Complex[Array, "j m y x"]]  # √quanta, centre at [N//2, N//2]
    coefficients: Varying[Float[Array, " j"] | Complex[Array, " j"]]

    def spectrum(self, grid: Grid) -> Waves:
        basis = waves.fourier(jnp.fft.ifftshift(self.waves, axes=(-2, -1)))
        return jnp.tensordot(self.coefficients.astype(basis.dtype), basis, 1)

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"waves": rms_amplitude(self.waves)}

    def mean_dose(self, grid: Grid) -> Scalar:
        return _mean_dose(self)

    def scale_dose(self, factor: Scalar) -> "RelaxedProbe":
        return _scale_waves(self, factor)

    def propagate(self, grid: Grid, distance: Scalar) -> "RelaxedProbe":
        return _propagate_waves(self, grid, distance)

    def reduce_waves(self, function: Callable[[Basis, Moments], PyTree]) -> PyTree:
        if not isinstance(self.waves, PerView):
            return function(self.waves, _moments(self.coefficients))
        separate = isinstance(self.coefficients, PerView)
        coefficients: Any = self.coefficients
        coefficients = coefficients.values if separate else coefficients

        def of_view(basis: Basis, coefficients: Array) -> PyTree:
            return function(basis, _moments(coefficients))

        mapped = jax.vmap(of_view, in_axes=(0, 0 if separate else None))
        return PerView(mapped(self.waves.values, coefficients))

    def map_waves(self, function: Callable[[Basis, Moments], Basis]) -> "RelaxedProbe":
        def change(basis: Basis, moments: Moments) -> Array:
            return function(basis, moments).astype(basis.dtype)

        return RelaxedProbe(self.reduce_waves(change), self.coefficients)

    def map_weights(self, change: Callable[[Array], Array]) -> "RelaxedProbe":
        if not isinstance(self.coefficients, PerShot):
            raise ValueError("the weights of this probe are shared by all shots; give them PerShot")
        return RelaxedProbe(self.waves, PerShot(change(self.coefficients.values)))


class AberratedProbe(AbstractProbe):
    """A round aperture and the aberrations of the lens, all of them differentiable.

    `aberrations` maps names (`C10` = −defocus, `C12a`, `C12b` … `C56b`, Å; see
    `physics.aberrations.cartesian`) to values. `centre` is the middle of the bright-field
    disc (y, x) [rad], the origin of the aberrations: it tilts the beam and leaves the position of
    the probe unchanged. Several `modes` are those of a Gaussian source (`physics.modes`), whose
    image on the specimen has the standard deviation `source` [Å].
    """

    fixed_by_default: ClassVar = ("source",)
    semiangle: Varying[Scalar]  # rad
    aberrations: dict[str, Varying[Scalar]]  # Å
    dose: Varying[Scalar]  # quanta per shot
    centre: Varying[Pair]  # rad
    source: Varying[Scalar]  # Å
    modes: int = eqx.field(static=True)

    def __init__(
        self,
        semiangle: Any,
        aberrations: Mapping[str, Any] | None = None,
        dose: Any = 1.0,
        centre: Any = (0.0, 0.0),
        source: Any = 0.0,
        modes: int = 1,
    ) -> None:
        """Accept `defocus` (> 0 is underfocus) and polar pairs `C12`, `phi12` as aberrations."""
        self.semiangle = _real(semiangle)
        self.dose = _real(dose)
        names = {} if aberrations is None else dict(aberrations)
        varying = {k: v for k, v in names.items() if isinstance(v, (PerShot, PerView))}
        fixed = cartesian({k: v for k, v in names.items() if k not in varying})
        self.aberrations = {k: _real(v) for k, v in sorted((fixed | varying).items())}
        self.centre = (
            centre if isinstance(centre, (PerShot, PerView)) else jnp.asarray(centre, float)
        )
        self.source = _real(source)
        self.modes = modes

    def spectrum(self, grid: Grid) -> Waves:
        amplitude = aberrations.aperture(grid, self.semiangle, self.centre)
        amplitude = amplitude * jnp.sqrt(self.dose / jnp.sum(amplitude**2))
        surface = aberrations.phase_surface(self.aberrations, grid, self.centre)
        wave = amplitude * jnp.exp(-1j * surface)
        if self.modes == 1:
            return wave[None]
        rim = jax.lax.stop_gradient(self.semiangle) / grid.wavelength  # only of the expansion
        middle = jax.lax.stop_gradient(jnp.asarray(self.centre)) / grid.wavelength
        return wave * source_modes(grid, self.source, rim, middle, self.modes)

    def scale(self, grid: Grid) -> dict[str, Any]:
        edge = jnp.max(plain(self.semiangle))
        step = grid.wavelength * max(grid.dk)
        one_radian = {
            name: grid.wavelength / (2 * math.pi) * (n + 1) / edge ** (n + 1)
            for name in self.aberrations
            for n in (aberrations.order(name),)
        }
        dose = jnp.mean(plain(self.dose))
        source = grid.wavelength / (2 * math.pi * edge)
        shares = {"semiangle": step, "centre": step, "source": source, "dose": dose}
        return shares | {"aberrations": one_radian}

    def with_modes(self, modes: int) -> "AberratedProbe":
        if modes == self.modes:
            return self
        if not np.any(plain(self.source)):
            raise ValueError(
                f"an aberrated probe of a point source is one wave, and {modes} modes came; give "
                "it a source (probe.source_angstrom), or use a PixelProbe"
            )
        lens = {
            name: value if isinstance(value, (PerShot, PerView)) else float(value)
            for name, value in self.aberrations.items()
        }
        return AberratedProbe(self.semiangle, lens, self.dose, self.centre, self.source, modes)

    def summary(self) -> dict[str, str]:
        mean = {name: float(np.mean(plain(value))) for name, value in self.aberrations.items()}
        terms = ", ".join(f"{name} {value:.4g}" for name, value in mean.items())
        edge = float(np.mean(plain(self.semiangle)))
        return {"semiangle": f"{1e3 * edge:.4g} mrad", "aberrations": f"{terms or 'none'} (Å)"}

    def mean_dose(self, grid: Grid) -> Scalar:
        return jnp.mean(plain(self.dose))

    def scale_dose(self, factor: Scalar) -> "AberratedProbe":
        new = jax.tree.map(lambda dose: (factor * dose).astype(dose.dtype), self.dose)
        return eqx.tree_at(lambda p: p.dose, self, new)

    def propagate(self, grid: Grid, distance: Scalar) -> "AberratedProbe":
        """Change of defocus; the lateral shift by `distance` × `centre` of a tilted probe is
        omitted.
        """
        defocus = self.aberrations.get("C10", jnp.zeros(()))
        moved = map_varying(lambda c10: c10 + distance, defocus)
        return eqx.tree_at(lambda p: p.aberrations, self, self.aberrations | {"C10": moved})


def mean_intensity(basis: Basis, moments: Moments) -> Intensity:
    """Intensity Σ_m |Σ_j c_j ψ_jm|², the mean over the shots."""
    mixed = jnp.einsum("jk,jmyx,kmyx->yx", moments.astype(basis.dtype), basis, jnp.conj(basis))
    return mixed.real


def rms_amplitude(probe_waves: PyTree) -> Float[Array, ""]:
    """Amplitude √(dose/N) [√quanta] of a probe spread evenly over its window."""
    values = plain(probe_waves)
    total = jnp.sum(jnp.abs(values) ** 2) / math.prod(values.shape[:-3])
    return jnp.sqrt(total / (values.shape[-1] * values.shape[-2]))


def _mean_dose(probe: PixelProbe | RelaxedProbe) -> Scalar:
    def dose(basis: Basis, moments: Moments) -> Scalar:
        return jnp.sum(mean_intensity(basis, moments))

    return jnp.mean(plain(probe.reduce_waves(dose)))


Waved = TypeVar("Waved", PixelProbe, RelaxedProbe)


def _scale_waves(probe: Waved, factor: Scalar) -> Waved:
    def scaled(values: Array) -> Array:
        return (jnp.sqrt(factor) * values).astype(values.dtype)

    return eqx.tree_at(lambda p: p.waves, probe, jax.tree.map(scaled, probe.waves))


def _propagate_waves(probe: Waved, grid: Grid, distance: Scalar) -> Waved:
    kernel = waves.fresnel(grid, distance)
    return eqx.tree_at(
        lambda p: p.waves, probe, map_varying(lambda one: _behind(one, kernel), probe.waves)
    )


def _behind(centred: Complex[Array, "*n y x"], kernel: Kernel) -> Complex[Array, "*n y x"]:
    """Waves centred at [N//2, N//2] after a propagator."""
    spectrum = waves.fourier(jnp.fft.ifftshift(centred, axes=(-2, -1)))
    return jnp.fft.fftshift(waves.inverse_fourier(kernel * spectrum), axes=(-2, -1))


def _moments(coefficients: PyTree) -> Moments:
    rows = plain(coefficients).reshape(-1, plain(coefficients).shape[-1])
    return rows.T @ jnp.conj(rows) / rows.shape[0]


def _real(value: Any) -> Any:
    return value if isinstance(value, (PerShot, PerView)) else jnp.asarray(value, float)
