"""Conversion to the native format: equal to a direct read, resumed after a kill, never half."""

import json
import subprocess
import sys

import cameras
import h5py
import numpy as np
import pytest
from test_completion import disc_counts
from typer.testing import CliRunner

import jaxptycho.io.convert
from jaxptycho.cli.main import app
from jaxptycho.io.convert import convert
from jaxptycho.io.datasets import read, reading_of
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import read_job

COUNTS = disc_counts(scan=(5, 7))
GIVEN = {"step_angstrom": 0.4, "voltage_kv": 300, "semiangle_mrad": 21.0}


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def settings(given):
    return [word for name, value in given.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def merlin(tmp_path):
    return cameras.write_mib(tmp_path / "scan.mib", COUNTS, times=cameras.line_times((5, 7)))


@pytest.fixture
def small_parts(monkeypatch):
    """Blocks of a few patterns each."""
    monkeypatch.setattr(jaxptycho.io.convert, "PART_BYTES", 8 * 40 * 36 * 2)


def same(one, other):
    np.testing.assert_array_equal(one.counts[0][:], other.counts[0][:])
    np.testing.assert_allclose(one.positions[0], other.positions[0])
    np.testing.assert_allclose(one.grid.pixel, other.grid.pixel)
    assert one.grid.voltage_kv == other.grid.voltage_kv


@pytest.mark.usefixtures("small_parts")
def test_a_converted_file_is_the_measurement(merlin, tmp_path):
    result = run("convert", merlin, tmp_path / "out.h5", *settings(GIVEN))
    assert result.exit_code == 0, result.output
    same(read(tmp_path / "out.h5"), read(merlin, **GIVEN))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5", "scan.mib"]
    with h5py.File(tmp_path / "out.h5") as file:
        assert json.loads(file.attrs["origins"])["scan_shape"] == "measured"
        assert file["counts"].dtype == np.uint16
        assert file["counts"].attrs["axes"] == "shot, y, x"


@pytest.mark.usefixtures("small_parts")
def test_what_is_unknown_is_left_out_and_named_later(merlin, tmp_path):
    result = run("convert", merlin, tmp_path / "out.h5")
    assert "left out: step_angstrom, voltage_kv, semiangle_mrad" in " ".join(result.output.split())
    with pytest.raises(ValueError, match=r"out.h5 does not give step_angstrom, voltage_kv, semi"):
        read(tmp_path / "out.h5")
    same(read(tmp_path / "out.h5", **GIVEN), read(merlin, **GIVEN))
    assert run("inspect", tmp_path / "out.h5").exit_code == 0
    again = run("convert", tmp_path / "out.h5", tmp_path / "full.h5", *settings(GIVEN))
    assert again.exit_code == 0, again.output
    same(read(tmp_path / "full.h5"), read(merlin, **GIVEN))


@pytest.mark.parametrize("ends", [1, 3, 4])
@pytest.mark.usefixtures("small_parts")
def test_a_stopped_conversion_continues(ends, merlin, tmp_path):
    reading = reading_of(merlin)
    out = tmp_path / "out.h5"
    seen = []

    def stop(done, total):
        seen.append(done)
        if len(seen) == ends:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(reading, out, GIVEN, stop)
    assert not out.exists()
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".out.h5.parts").glob("*.h5")}
    assert len(kept) == ends
    (tmp_path / ".out.h5.parts" / ".000009.h5.1").write_bytes(b"half a block")
    convert(reading, out, GIVEN)
    same(read(out), read(merlin, **GIVEN))
    assert not (tmp_path / ".out.h5.parts").exists()


@pytest.mark.usefixtures("small_parts")
def test_blocks_of_another_file_are_not_taken(merlin, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        convert(reading_of(merlin), tmp_path / "out.h5", {}, _interrupt)
    other = cameras.write_mib(tmp_path / "other.mib", COUNTS[:4])
    with pytest.raises(ValueError, match="blocks of another conversion"):
        convert(reading_of(other), tmp_path / "out.h5", {})
    assert not (tmp_path / "out.h5").exists()


def _interrupt(done, total):
    raise KeyboardInterrupt


def test_a_killed_conversion_leaves_no_file_and_continues(merlin, tmp_path):
    code = (
        "import sys, os, signal, jaxptycho.io.convert as c\n"
        "from jaxptycho.io.datasets import reading_of\n"
        "from pathlib import Path\n"
        f"c.PART_BYTES = {8 * 40 * 36 * 2}\n"
        "kill = lambda done, total: done > 10 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "c.convert(reading_of(sys.argv[1]), Path(sys.argv[2]), {}, kill)\n"
    )
    out = tmp_path / "out.h5"
    ended = subprocess.run([sys.executable, "-c", code, str(merlin), str(out)], check=False)
    assert ended.returncode == -9
    assert not out.exists()
    assert len(list((tmp_path / ".out.h5.parts").glob("0*.h5"))) == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [({"scan_shape": (6, 6)}, "35 patterns"), ({"frames": (0, 99)}, "holds 35 patterns")],
)
def test_a_refused_conversion_writes_nothing(given, words, merlin, tmp_path):
    values = {name: list(value) for name, value in given.items()}
    result = run("convert", merlin, tmp_path / "out.h5", *settings(values))
    assert result.exit_code == 2
    assert words in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["scan.mib"]


def test_values_that_are_not_finite_are_refused(tmp_path):
    counts = COUNTS.astype(np.float32)
    counts[2, 3, 1, 1] = np.inf
    np.save(tmp_path / "a.npy", counts)
    result = run("convert", tmp_path / "a.npy", tmp_path / "out.h5")
    assert (result.exit_code, "a.npy: counts of shot 17 are not finite" in result.stderr) == (
        2,
        True,
    )
    assert not (tmp_path / "out.h5").exists()


def test_an_existing_file_is_kept(merlin, tmp_path):
    (tmp_path / "out.h5").write_bytes(b"mine")
    result = run("convert", merlin, tmp_path / "out.h5")
    assert (result.exit_code, "out.h5 exists" in result.stderr) == (2, True)
    assert (tmp_path / "out.h5").read_bytes() == b"mine"
    assert run("convert", merlin, tmp_path / "out.mrc").exit_code == 2


def test_inspect_shows_origins(merlin):
    result = run("inspect", merlin)
    assert result.exit_code == 0
    text = " ".join(result.output.replace("│", " ").split())
    assert "scan_shape 5 × 7 ← measured (pauses between lines)" in text
    assert "semiangle_mrad unknown" in text
    assert "to be given step_angstrom, voltage_kv, semiangle_mrad" in text
    given = run("inspect", merlin, *settings({"scan.step_angstrom": 0.4, "data.voltage_kv": 300}))
    assert "voltage_kv 300 ← given" in " ".join(given.output.replace("│", " ").split())


def test_a_large_native_file_is_described_by_a_sample(merlin, tmp_path, monkeypatch):
    convert(reading_of(merlin), tmp_path / "out.h5", GIVEN)
    monkeypatch.setattr("jaxptycho.reports.readings.SMALL_BYTES", 0)
    monkeypatch.setattr("jaxptycho.jobs.describe.read", None)  # of all patterns
    text = run("inspect", tmp_path / "out.h5").output
    assert "35 of 40 × 36 pixels" in text
    assert "semiangle_mrad" in text


def test_a_job_reads_the_file_of_a_camera(merlin, tmp_path):
    job = tmp_path / "scan.toml"
    job.write_text(
        '[data]\nfile = "scan.mib"\nvoltage_kv = 300.0\n[scan]\nstep_angstrom = 0.4\n'
        "[probe]\nsemiangle_mrad = 21.0\ndefocus_angstrom = 20.0\n"
    )
    made = read_job(job)
    same(read_data(made), read(merlin, **GIVEN))
    job.write_text('[data]\nfile = "scan.mib"\n')
    result = run("validate", job)
    assert result.exit_code == 2
    assert "data.voltage_kv, probe.semiangle_mrad" in result.stderr
