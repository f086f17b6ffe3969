"""Writes a native file like the data of the published benchmarks: 128² patterns of a thin crystal on a raster, 80 kV.

The patterns are those of this package's own multislice in six slices, with Poisson noise; the
positions, the probe and the sampling are told to every package alike, so that all start from the same.
"""

import argparse
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import jaxptycho as jp
from jaxptycho.io.native import native_writer

PIXELS, PIXEL, VOLTAGE = 128, 0.15, 80.0  # Å, kV
SEMIANGLE, DEFOCUS, DOSE = 24.9, 100.0, 1e5  # mrad, Å, quanta per pattern
STEP, SLICES, THICKNESS = 0.43, 6, 12.0  # Å
COLUMNS, WIDTH, STRENGTH = 0.15, 0.2, 0.5  # per Å², Å, rad in every slice
BLOCK = 64  # patterns computed at a time


def phases(shape) -> np.ndarray:
    """Phases [slice, y, x] of Gaussian columns at random places, other ones in every slice."""
    rng = np.random.default_rng(0)
    k2 = sum(np.meshgrid(*(np.fft.fftfreq(n, PIXEL) ** 2 for n in shape), indexing="ij"))
    blur = 2 * np.pi * (WIDTH / PIXEL) ** 2 * np.exp(-2 * (np.pi * WIDTH) ** 2 * k2)
    columns = rng.poisson(COLUMNS * PIXEL**2, (SLICES, *shape))
    return STRENGTH * np.fft.ifft2(np.fft.fft2(columns) * blur).real


def true_model(scan: tuple[int, int], grid: jp.Grid) -> jp.Model:
    """A model of as many shots as the scan has; the positions begin at 0."""
    shape = tuple(PIXELS + math.ceil(n * STEP / PIXEL) + 8 for n in scan)
    origin = -(PIXELS // 2 + 4) * PIXEL
    positions = STEP * np.stack(np.meshgrid(*map(np.arange, scan), indexing="ij"), -1).reshape(
        -1, 2
    )
    probe = jp.AberratedProbe(SEMIANGLE * 1e-3, {"defocus": DEFOCUS}, DOSE)
    return jp.Model(
        probe=probe,
        specimen=jp.SliceStack(
            jnp.asarray(phases(shape), jnp.float32), None, THICKNESS / SLICES, (origin, origin)
        ),
        scan=jp.FreeScan(jp.PerShot(jnp.asarray(positions, jnp.float32))),
        grid=grid,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument(
        "--patterns", type=int, default=1024, help="of a scan as square as possible"
    )
    args = parser.parse_args()
    rows = max(n for n in range(1, math.isqrt(args.patterns) + 1) if args.patterns % n == 0)
    scan = rows, args.patterns // rows
    grid = jp.Grid((PIXELS, PIXELS), PIXEL, voltage_kv=VOLTAGE)
    model, rng = true_model(scan, grid), np.random.default_rng(1)
    expected = eqx.filter_jit(jp.predict)
    about = {
        "dk_inverse_angstrom": grid.dk[0],
        "semiangle_mrad": SEMIANGLE,
        "defocus_angstrom": DEFOCUS,
        "thickness_angstrom": THICKNESS,
        "scan_shape": np.array(scan),
        "scan_step_angstrom": STEP,
    }
    places = np.asarray(model.scan.positions.values, float)
    with native_writer(args.out, grid, [places], np.uint16, about=about) as put:
        for start in range(0, args.patterns, BLOCK):
            shots = np.arange(start, min(start + BLOCK, args.patterns))
            counts = rng.poisson(np.asarray(expected(model, shots), float)).astype(np.uint16)
            put(0, slice(shots[0], shots[-1] + 1), np.fft.fftshift(counts, axes=(1, 2)))


if __name__ == "__main__":
    main()
