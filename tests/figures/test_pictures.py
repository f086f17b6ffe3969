"""Pictures: what is shown lies inside the scan, in units that read well, and filters keep their band."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import FreeScan, Grid, Ideal, Model, PerShot, PixelProbe, SliceStack
from jaxptycho.analysis.pictures import band_filtered, picture, probe_modes
from jaxptycho.analysis.scanned import seen
from jaxptycho.figures.plots import round_length, unit_of
from jaxptycho.reports.compare import common_phases

GRID = Grid((8, 8), 2.0, voltage_kv=80.0)


def model_of(phase, turn=0.0, origin=(0.0, 0.0), modes=None) -> Model:
    nodes = np.stack(np.meshgrid(*[np.linspace(-60, 60, 13)] * 2, indexing="ij"), -1).reshape(-1, 2)
    c, s = np.cos(turn), np.sin(turn)
    places = jnp.asarray(nodes @ np.array([[c, s], [-s, c]]) + 128)
    waves = jnp.ones((1, 8, 8), complex) if modes is None else modes
    specimen = SliceStack(jnp.asarray(phase)[None], None, jnp.zeros(()), jnp.asarray(origin))
    return Model(PixelProbe(waves), specimen, FreeScan(PerShot(places)), GRID, detector=Ideal())


def texture(shape=(128, 128)):
    smooth = np.fft.rfft2(np.random.default_rng(0).normal(size=shape))
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    return np.fft.irfft2(smooth * np.exp(-200 * (ky**2 + kx**2)), s=shape)


def test_corners_outside_a_turned_scan_are_not_shown():
    shown = picture(model_of(texture(), turn=np.pi / 4)).phase[0]
    assert np.isnan(shown[0, 0])
    assert np.isfinite(shown[len(shown) // 2]).sum() > 0.9 * shown.shape[1]
    assert np.isfinite(shown).mean() == pytest.approx(0.5, abs=0.05)
    straight = seen(model_of(texture()), (128, 128))
    assert straight.sum() == pytest.approx(61**2, rel=0.05)


def test_a_ramp_and_a_constant_are_removed():
    y, x = np.indices((128, 128))
    plain, sloped = (
        picture(model_of(texture() + ramp)).phase for ramp in (0.0, 0.3 + 0.02 * y - 0.01 * x)
    )
    np.testing.assert_allclose(sloped, plain, atol=1e-9)


def test_a_shifted_result_is_registered():
    moved = np.roll(texture(), (2, -3), (0, 1))
    a, b, shift = common_phases(model_of(texture(), turn=0.4), model_of(moved, turn=0.4))
    np.testing.assert_allclose(shift, [-2, 3], atol=0.05)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.99
    # the same specimen, whose array starts elsewhere
    a, b, shift = common_phases(
        model_of(texture()), model_of(np.roll(texture(), (4, 4), (0, 1)), origin=(-8.0, -8.0))
    )
    np.testing.assert_allclose(shift, 0, atol=0.05)


def test_a_band_pass_keeps_its_band():
    x = np.arange(256) * 2.0
    for period, kept in ((8.0, 0.0), (64.0, 1.0), (1024.0, 0.0)):
        wave = np.broadcast_to(np.cos(2 * np.pi * x / period), (64, 256))
        power = np.std(band_filtered(wave, (2.0, 2.0), (15.0, 180.0))) / np.std(wave)
        assert power == pytest.approx(kept, abs=0.1)


def test_modes_are_orthogonal_and_keep_their_power():
    rng = np.random.default_rng(1)
    waves = jnp.asarray(rng.normal(size=(3, 8, 8)) + 1j * rng.normal(size=(3, 8, 8)))
    modes = probe_modes(model_of(texture(), modes=waves))
    gram = np.einsum("ayx,byx->ab", modes.waves, modes.waves.conj())
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-9)
    np.testing.assert_allclose(np.trace(gram).real, np.sum(np.abs(waves) ** 2))
    assert list(modes.powers) == sorted(modes.powers, reverse=True)
    assert modes.powers.sum() == pytest.approx(1)


def test_lengths_read_well():
    assert [round_length(v) for v in (0.7, 3.0, 47.0, 512.0)] == [0.5, 2, 20, 500]
    assert [unit_of(v)[0] for v in (0.5, 5.0, 500.0, 2e4)] == ["Å", "Å", "nm", "µm"]
