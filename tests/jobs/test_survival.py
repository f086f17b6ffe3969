"""Runs that are killed, and runs of many processes, end with the model of one that nothing happened to."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import equinox as eqx
import jax
import numpy as np
import pytest

import jaxptycho.data.dataset
from jaxptycho import Dataset, load, read
from jaxptycho.io.hdf5 import OnDisk
from jaxptycho.io.native import write_native
from jaxptycho.io.results import load_history
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.writing import write_job

pytestmark = pytest.mark.slow
DOUBLE = {"JAX_ENABLE_X64": 1}
MAIN = "from jaxptycho.cli.main import main; main()"
# no file may become larger than this, as on a disk that is full
FULL = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); {MAIN}"


def command(*arguments, main=MAIN, **environment):
    """A process that runs the command line on two devices."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "PMI", "JAX"))
    }
    return subprocess.Popen(
        [sys.executable, "-c", main, *map(str, arguments)],
        env=clean | {k: str(v) for k, v in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=240) -> str:
    out, _ = process.communicate(timeout=seconds)
    return out


def processes(count, *arguments, **environment):
    """The same command in so many processes, which find one another over the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        command(
            *arguments,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES=count,
            JAX_PROCESS_ID=rank,
            **environment,
        )
        for rank in range(count)
    ]


def leaves(folder):
    return jax.tree.leaves(eqx.filter(load(folder / "result.h5"), eqx.is_inexact_array))


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


@pytest.fixture
def job(values, tmp_path):
    """Path of a job, a checkpoint every epoch, on all devices or as many as asked for."""

    def write(epochs=3, **run):
        steps = [values["step"][0] | {"epochs": epochs}, values["step"][1]]
        path = tmp_path / "job.toml"
        path.write_text(
            write_job(make_job(values | {"step": steps, "run": {"checkpoint_every": 1} | run}))
        )
        return path

    return write


def test_a_run_killed_at_any_moment_resumes_to_the_same_model(job, tmp_path):
    """Twenty times `kill -9`, anywhere from the first import to the last figure; bitwise on one device."""
    path, rng = job(epochs=12, devices=1), random.Random(0)
    began = time.monotonic()
    out = finish(command("run", path, "--out", tmp_path / "whole"))
    lasts, folder, kills = time.monotonic() - began, tmp_path / "broken", 0
    assert (tmp_path / "whole" / "result.h5").exists(), out
    go_on = ("run", path, "--out", folder, "--resume")
    while kills < 20:
        process = command(*go_on)
        try:
            process.wait(rng.uniform(0.1, 1) * lasts)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        out = finish(process)
        assert process.returncode in (0, -9), out
        if process.returncode == 0:  # it got through; begin again
            assert same(tmp_path / "whole", folder)
            shutil.rmtree(folder)
    out = finish(command(*go_on))
    assert same(tmp_path / "whole", folder), out
    rows = [load_history(run / "result.h5")["loss"] for run in (tmp_path / "whole", folder)]
    np.testing.assert_array_equal(*rows)


def test_a_disk_that_fills_while_a_run_goes_on_costs_nothing_but_time(job, tmp_path):
    path, folder = job(epochs=4, devices=1), tmp_path / "run"
    finish(command("run", path, "--out", tmp_path / "whole"))
    begun = command("run", path, "--out", folder)
    until = time.monotonic() + 120
    before = set()
    while not before and time.monotonic() < until:
        time.sleep(0.02)
        before = {
            path.name for path in (folder / "checkpoints").glob("*") if path.name.isdigit()
        }  # whole ones
    begun.send_signal(signal.SIGKILL)
    finish(begun)
    assert begun.returncode == -signal.SIGKILL
    full = command("resume", folder, main=FULL)
    out = finish(full)
    assert full.returncode == 2, out
    assert "could not be written" in out.splitlines()[-1], out
    assert before <= {p.name for p in (folder / "checkpoints").iterdir()}
    out = finish(command("resume", folder))
    assert same(tmp_path / "whole", folder), out


def test_two_processes_give_the_model_of_one(job, tmp_path):
    path = job()
    out = finish(command("run", path, "--out", tmp_path / "one", **DOUBLE))
    assert (tmp_path / "one" / "result.h5").exists(), out
    outs = [finish(p) for p in processes(2, "run", path, "--out", tmp_path / "two", **DOUBLE)]
    assert (tmp_path / "two" / "result.h5").exists(), outs
    assert "two" in outs[0]
    assert "loss" not in outs[1]  # text by the first alone
    for a, b in zip(leaves(tmp_path / "one"), leaves(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8 * np.abs(a).max())
    one, two = (load_history(tmp_path / run / "result.h5") for run in ("one", "two"))
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-9)
    np.testing.assert_allclose(one["held_out"], two["held_out"], rtol=1e-9)
    assert len(list((tmp_path / "two" / "checkpoints").iterdir())) == 2
    outs = [
        finish(p) for p in processes(2, "resume", tmp_path / "two", **DOUBLE)
    ]  # a finished run stays as it is
    assert "finished" in outs[0], outs
    alone = finish(command("resume", tmp_path / "two", **DOUBLE))  # from two processes to one
    assert "finished" in alone


def test_two_processes_that_are_killed_are_gone_on_with_by_two_or_by_one(job, tmp_path):
    path, whole = job(epochs=30), tmp_path / "whole"
    finish(command("run", path, "--out", whole, **DOUBLE))
    pair = processes(2, "run", path, "--out", tmp_path / "two", **DOUBLE)
    until = time.monotonic() + 120
    while not list((tmp_path / "two" / "checkpoints").glob("[1-9]*")) and time.monotonic() < until:
        time.sleep(0.02)
    for process in pair:
        process.send_signal(signal.SIGKILL)
    for process in pair:
        finish(process)
    assert not (tmp_path / "two" / "result.h5").exists()
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    outs = [finish(p) for p in processes(2, "resume", tmp_path / "two", **DOUBLE)]
    outs.append(finish(command("resume", tmp_path / "one", **DOUBLE)))
    for ended in ("two", "one"):
        assert (tmp_path / ended / "result.h5").exists(), outs
        for a, b in zip(leaves(whole), leaves(tmp_path / ended), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-8 * np.abs(a).max())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_stops_the_others_within_a_minute(job, tmp_path, victim):
    path = job(epochs=500)
    pair = processes(2, "run", path, "--out", tmp_path / "run")
    until = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("[1-9]*")) and time.monotonic() < until:
        time.sleep(0.2)
    pair[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    out = finish(pair[1 - victim], 60)
    assert time.monotonic() - began < 60
    assert pair[1 - victim].returncode not in (0, None)
    assert "another one has died" in out or "another task died" in out, out
    finish(pair[victim])


def test_a_signal_to_one_process_stops_all_at_the_same_batch(job, tmp_path):
    path = job(epochs=500)
    pair = processes(2, "run", path, "--out", tmp_path / "run")
    until = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("[1-9]*")) and time.monotonic() < until:
        time.sleep(0.2)
    pair[1].send_signal(signal.SIGTERM)
    outs = [finish(process, 60) for process in pair]
    assert [process.returncode for process in pair] == [143, 143], (
        outs
    )  # of 0 none would be started again
    assert "continue with: jaxptycho resume" in outs[0]
    assert "stopped by SIGTERM" in outs[0]
    assert (tmp_path / "run" / "result.h5").exists()


@pytest.mark.filterwarnings("ignore:192 of 256 shots have the position of another")
def test_a_run_never_loads_a_file_larger_than_memory(values, tmp_path, monkeypatch):
    """From the first look to the last figure no more than one block of patterns at a time."""
    few = read(values["data"]["file"])
    counts = np.concatenate([few.counts[0][:]] * 4)
    write_native(
        tmp_path / "many.h5",
        Dataset(counts, np.tile(few.positions[0], (4, 1)), few.grid, about=few.about),
    )
    job = make_job(values | {"data": {"file": str(tmp_path / "many.h5"), "hold_out": 0.1}})
    known = start(job, tmp_path / "known")
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    sizes, get = [], OnDisk.__getitem__

    def seen(self, index):
        block = get(self, index)
        sizes.append(len(block))
        return block

    monkeypatch.setattr(OnDisk, "__getitem__", seen)
    assert same(start(job, tmp_path / "run").folder, known.folder)
    assert max(sizes) <= 64 < len(counts)
    assert sum(sizes) > 6 * len(counts)  # every epoch read it again
