"""The example of the lecture in one package: seconds to reconstruct, once and again, and how good it became.

`bench_lecture.py` makes the file of amplitudes and runs this in a process of its own.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

RATE = 3e-2


def with_torch(file, epochs: int):
    """Phase [rad] by a loop over positions: every window is cut by itself, with indices that wrap around."""
    import torch

    def run():
        probe, measured = torch.from_numpy(file["probe"]), torch.from_numpy(file["amplitudes"])
        corners, n = torch.from_numpy(file["corners"]), len(file["probe"])
        guess = torch.ones(n, n, dtype=torch.complex64, requires_grad=True)
        adam = torch.optim.Adam([guess], lr=RATE)
        for _ in range(epochs):
            for batch in torch.randperm(len(corners)).chunk(2):
                seen = []
                for y, x in corners[batch]:
                    row, column = torch.meshgrid(
                        torch.arange(y, y + n) % n, torch.arange(x, x + n) % n, indexing="ij"
                    )
                    seen.append(guess[row, column])
                predicted = torch.fft.fft2(probe * torch.stack(seen)).abs()
                loss = torch.nn.functional.mse_loss(predicted, measured[batch])
                adam.zero_grad()
                loss.backward()
                adam.step()
                loss.item()  # as the lecture prints it
        return guess.angle().detach().numpy()

    return *twice(run, run), f"torch {torch.__version__}"


def with_jaxptycho(file, epochs: int, cache: str):
    """Phase [rad] as in notebook 01; compiled programs are kept in the folder `cache`.

    Again is the loop around a step that has been compiled.
    """
    import jax
    import jax.numpy as jnp
    import optax

    import jaxptycho as jp

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    n, corners = len(file["probe"]), file["corners"]
    loss = jp.misfit(lambda predicted, counts: jp.amplitude(predicted, counts, 1e-10))
    adam = jp.per_part(
        {"specimen.phase": optax.adam(RATE), "specimen.absorption": optax.adam(RATE)}
    )

    def start():
        grid = jp.Grid((n, n), pixel=1.0, voltage_kv=300.0)
        measured = jp.Dataset(
            np.fft.fftshift(file["amplitudes"] ** 2, axes=(1, 2)), corners + n // 2, grid
        )
        blank = jnp.asarray(np.zeros((1, n, n), np.float32))
        model = jp.Model(
            probe=jp.PixelProbe(jnp.asarray(n * file["probe"][None])),
            specimen=jp.SliceStack(
                blank, blank.copy(), thickness=0.0, origin=(0.0, 0.0), periodic=True
            ),
            scan=jp.FreeScan(jp.PerShot(jnp.asarray(measured.positions[0]))),
            grid=grid,
        )
        return model, jp.batches(measured, size=len(corners) // 2, epochs=epochs)

    def phase(model):
        return np.asarray(model.specimen.phase)[0]

    def run():
        model, batches = start()
        return phase(jp.minimise(loss, model, batches, adam)[0])

    step = jp.make_step(loss, adam)

    def by_hand():
        model, batches = start()
        state = jp.init_state(adam, model)
        for batch in batches:
            model, state, _ = step(model, state, batch)
        return phase(model)

    return *twice(run, by_hand), f"jaxptycho {jp.__version__}, jax {jax.__version__}"


def with_jax(file, epochs: int, cache: str):
    """Phase [rad] as the lecture's loop would be written in JAX alone, in one program for all steps: what tracing,
    loading and computing take at least."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    n, rng = len(file["probe"]), np.random.default_rng(0)

    def start():
        orders = [rng.permutation(len(file["corners"])).reshape(2, -1) for _ in range(epochs)]
        return np.ones((2, n, n), np.float32) * np.array([1, 0], np.float32)[
            :, None, None
        ], np.concatenate(orders)

    @jax.jit
    def descend(guess, orders, probe, corners, measured):
        def misfit(guess, batch):
            tiled = jnp.tile(jax.lax.complex(*guess), (2, 2))

            def of_shot(corner, amplitudes):
                seen = jax.lax.dynamic_slice(tiled, corner % n, (n, n))
                return jnp.sum((jnp.abs(jnp.fft.fft2(probe * seen)) - amplitudes) ** 2)

            return jnp.sum(jax.vmap(of_shot)(corners[batch], measured[batch]))

        def step(carry, batch):
            guess, first, second, t = carry
            slope = jax.grad(misfit)(guess, batch) / (len(batch) * n**2)
            first, second, t = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2, t + 1
            move = first / (1 - 0.9**t) / (jnp.sqrt(second / (1 - 0.999**t)) + 1e-8)
            return (guess - RATE * move, first, second, t), None

        nothing = jnp.zeros_like(guess)
        return jax.lax.scan(step, (guess, nothing, nothing, 0.0), orders)[0][0]

    def run():
        real, imaginary = np.asarray(
            descend(*start(), file["probe"], file["corners"], file["amplitudes"])
        )
        return np.angle(real + 1j * imaginary)

    return *twice(run, run), f"jax {jax.__version__}"


def twice(run, again):
    """What `run()` gives, and seconds: its own, those of `again()` once that has been run, and of both runs of it."""
    times = [time.perf_counter()]
    found = run()
    for then in (lambda: None, again, again):
        then()
        times.append(time.perf_counter())
    return found, {
        "reconstruct_s": times[1] - times[0],
        "again_s": times[3] - times[2],
        "later_s": times[3] - times[1],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=("torch", "jax", "jaxptycho"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cache", help="folder for compiled programs")
    args = parser.parse_args()
    with np.load(args.file) as stored:
        file = dict(stored)
    more = () if args.package == "torch" else (args.cache,)
    run = {"torch": with_torch, "jax": with_jax, "jaxptycho": with_jaxptycho}[args.package]
    phase, times, version = run(file, args.epochs, *more)
    error = phase - file["truth"]
    psnr = 20 * np.log10(np.ptp(file["truth"]) / np.std(error))
    print(json.dumps(times | {"psnr": float(psnr), "version": version}))


if __name__ == "__main__":
    main()
