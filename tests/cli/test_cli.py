"""The command line: the way from a file to a result, and one sentence for everything wrong."""

import json
import re
import shutil
import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import click
import h5py
import jax
import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from jaxptycho import load
from jaxptycho.cli import main as cli
from jaxptycho.cli.main import app
from jaxptycho.jobs import new
from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.template_files import templates
from jaxptycho.jobs.writing import write_job

SHORT = ["--set", "step.0.epochs=2", "--set", "step.0.batch=16", "--set", "run.devices=1"]


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments) -> str:
    """The one sentence with which a command ends."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def new_job(measurement, tmp_path_factory):
    """A job as `jaxptycho new` writes it, calibrated from the measurement."""
    path = tmp_path_factory.mktemp("new") / "job.toml"
    result = run("new", measurement, "--out", path)
    assert result.exit_code == 0, result.output
    return path


@pytest.fixture
def job(new_job, tmp_path):
    """A copy of that job, in a folder as deep, so that its paths hold."""
    return Path(shutil.copy(new_job, tmp_path / "job.toml"))


def test_a_new_job_knows_the_file_validates_and_runs_unchanged(job, measurement, tmp_path):
    wanted = read_job(job)
    assert wanted.data.file == str(measurement.resolve())
    assert wanted.probe.semiangle_mrad == pytest.approx(25.0, rel=0.05)
    assert wanted.probe.defocus_angstrom == pytest.approx(60.0, abs=15.0)
    assert "1 × 71 × 71" in run("validate", job).output
    rates = ["--set", "step.0.rates.specimen=3e-2", "--set", "step.0.rates.probe=5e-3"]
    enough = [*SHORT, "--set", "step.0.epochs=12", *rates]
    result = run("run", job, "--out", tmp_path / "run", *enough)
    assert result.exit_code == 0, result.output
    assert "finished" in result.output
    assert (tmp_path / "run" / "figures" / "object.png").exists()
    assert "epoch 12/12  loss" in result.output  # no terminal
    log = (tmp_path / "run" / "run.log").read_text()
    assert "step 0: " in log
    assert "epoch 12/12  loss" in log
    assert log.endswith("finished\n")
    as_run = read_job(tmp_path / "run" / "run.toml")
    assert as_run == read_job(job, enough[1::2])
    assert "PixelProbe" in run("inspect", tmp_path / "run").output
    assert "50 epochs of adam" in run("inspect", job).output

    before = (tmp_path / "run" / "result.h5").read_bytes()
    assert "exists and is not overwritten" in refused("run", job, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "result.h5").read_bytes() == before
    assert "exists and is not overwritten" in refused("new", measurement, "--out", job)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("by", ["positions", pytest.param("counts", marks=pytest.mark.slow)])
def test_halves_share_nothing_and_agree(by, job, tmp_path):
    epochs = {"positions": 20, "counts": 15}[by]
    more = [
        *SHORT[:1],
        f"step.0.epochs={epochs}",
        *SHORT[2:],
        "--set",
        "step.0.rates.specimen=3e-2",
    ]
    result = run("halves", job, "--by", by, "--out", tmp_path / "both", *more)
    assert result.exit_code == 0, result.output
    for word in ("half-bit resolution", "one-bit resolution", "0.143 resolution", "nothing"):
        assert word in result.output
    assert (tmp_path / "both" / "frc.png").stat().st_size > 5000
    names = {"positions": ("black", "white"), "counts": ("first", "second")}[by]
    one, other = (load(tmp_path / "both" / half / "result.h5") for half in names)
    shots = [{tuple(p) for p in np.asarray(m.scan.positions.values)} for m in (one, other)]
    assert len(shots[0]) == len(shots[1]) == (32 if by == "positions" else 64)
    assert len(shots[0] & shots[1]) == (0 if by == "positions" else 64)
    assert np.abs(one.probe.waves - other.probe.waves).max() > 1e-3 * np.abs(one.probe.waves).max()
    curve = np.genfromtxt(tmp_path / "both" / "frc.csv", delimiter=",", names=True, deletechars="")
    assert curve["correlation"][1:4].mean() > 0.5
    assert (curve["ssnr"][1:4] > 1).all()
    assert {"one_bit", "half_bit", "0.143", "samples"} < set(curve.dtype.names)
    same = run("compare", tmp_path / "both" / names[0], tmp_path / "both" / names[0] / "result.h5")
    assert "1.0000" in same.output
    assert "+0.00, +0.00 pixels" in same.output


def test_halves_that_cannot_be_told_apart_are_refused(job, measurement, tmp_path):
    out = tmp_path / "both"
    assert "uses one half already" in refused(
        "halves", job, "--out", out, "--set", "data.half=black"
    )
    path = tmp_path / "scaled.h5"
    shutil.copy(measurement, path)
    with h5py.File(path, "r+") as file:
        counts(lambda c: 1.5 * c)(file)
    file = ["--set", f"data.file={path}"]
    assert "whole quanta" in refused("halves", job, "--by", "counts", "--out", out, *file)
    assert not out.exists()


def test_inspect_warns_of_a_semiangle_that_the_pattern_does_not_show(measurement, tmp_path):
    assert "semiangle" in run("inspect", measurement).output
    assert "caution" not in run("inspect", measurement).output
    path = tmp_path / "wrong.h5"
    shutil.copy(measurement, path)
    with h5py.File(path, "r+") as file:
        file.attrs["semiangle_mrad"] = 10.0
    assert "caution" in run("inspect", path).output


def test_inspect_reports_the_system():
    output = run("inspect", "--system").output
    for name in ("devices", "memory of a device", "kernels on cpu", "jaxlib", "llvmlite"):
        assert name in output
    assert jax.__version__ in output


def test_inspect_writes_its_rows_for_scripts(measurement):
    rows = json.loads(run("inspect", measurement, "--json").output)[str(measurement)]
    assert rows["patterns"].endswith("pixels")
    assert rows["detector step"].endswith("mrad")


def test_inspect_without_a_file_is_refused():
    assert "give a dataset, result, run or job, or --system" in refused("inspect")


@pytest.mark.parametrize("name", sorted(set(templates()) - {"particle"}))  # which simulates
def test_templates_are_valid_jobs_for_any_file(name, measurement, tmp_path):
    path = tmp_path / "job.toml"
    assert run("new", measurement, "--out", path, "--template", name).exit_code == 0
    job = read_job(path)
    assert job.data.file == str(measurement.resolve())
    assert write_job(job)


def test_help_names_every_command():
    text = run("--help").output
    for name in ("demo", "new", "run", "resume", "inspect", "validate", "compare", "halves"):
        assert name in text


def without(name):
    def spoil(file):
        del file[name]

    return spoil


def counts(change):
    def spoil(file):
        values = change(file["counts"][()].astype(np.float32))
        del file["counts"]
        file["counts"] = values

    return spoil


def nan(values):
    values[3:30, 4, 5] = np.nan  # of so many shots that they are not left out
    return values


def mask_of_nothing(file):
    file["mask"] = np.zeros((32, 32), bool)


def unknown_unit(file):
    del file.attrs["voltage_kv"]
    file.attrs["voltage_mev"] = 0.08


SPOILT = {
    "no counts": (without("counts"), "/counts"),
    "no positions": (without("positions"), "/positions"),
    "counts of another shape": (counts(lambda c: c[:, 0]), "[shot, y, x]"),
    "fewer patterns than positions": (counts(lambda c: c[:-1]), "positions"),
    "not a number": (counts(nan), "shot 3"),
    "zero dose": (counts(np.zeros_like), "hold no counts"),
    "a mask that hides everything": (mask_of_nothing, "hides every pixel"),
    "an unknown unit": (unknown_unit, "voltage_kv"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_files_end_with_one_sentence(name, measurement, job, tmp_path):
    spoil, said = SPOILT[name]
    path = tmp_path / "spoilt.h5"
    shutil.copy(measurement, path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    out = tmp_path / "run"
    assert said in refused("run", job, "--out", out, "--set", f"data.file={path}")
    assert not out.exists()


def test_a_truncated_file_and_a_missing_one(measurement, job, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes(measurement.read_bytes()[:20000])
    assert "truncated" in refused(
        "run", job, "--out", tmp_path / "run", "--set", f"data.file={path}"
    )
    assert "nowhere.h5" in refused("run", job, "--set", "data.file=nowhere.h5")
    assert "nowhere.toml" in refused("run", tmp_path / "nowhere.toml")
    assert "no run.toml" in refused("resume", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_cxi_without_positions(job, tmp_path):
    path = tmp_path / "scan.cxi"
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        file["entry_1/instrument_1/detector_1/data"] = np.ones((4, 8, 8), np.uint16)
    assert "positions" in refused(
        "run", job, "--out", tmp_path / "run", "--set", f"data.file={path}"
    )


def test_unknown_keys_and_wrong_units_of_a_job(job, tmp_path):
    out = ["--out", tmp_path / "run"]
    assert "did you mean semiangle_mrad" in refused(
        "run", job, *out, "--set", "probe.semiangle=20.0"
    )
    assert "did you mean thickness_angstrom" in refused(
        "run", job, *out, "--set", "specimen.thickness_nm=2.0"
    )
    assert "no parameter 'propagator'" in refused(
        "run", job, *out, "--set", "step.0.rates.propagator=1e-2"
    )
    assert "wrong options for adam" in refused(
        "run", job, *out, "--set", "step.0.options={b3 = 0.9}"
    )
    assert not (tmp_path / "run").exists()


def test_what_has_no_meaning_for_the_model_is_refused_before_anything_is_written(job, tmp_path):
    out = ["--out", tmp_path / "run"]
    thick = "step.0.constraint=[{kind = 'gaussian_along_z', sigma_angstrom = 3.0}]"
    assert "one slice" in refused("run", job, *out, "--set", thick)
    assert "thickness" in refused("run", job, *out, "--set", "specimen.slices=3")
    assert not (tmp_path / "run").exists()


def test_negative_counts_are_clipped_with_a_warning(measurement, job, tmp_path):
    path = tmp_path / "dark.h5"
    shutil.copy(measurement, path)
    with h5py.File(path, "r+") as file:
        counts(lambda c: c - (c == 0))(file)
    with pytest.warns(UserWarning, match="negative counts"):
        result = run("validate", job, "--set", f"data.file={path}")
    assert result.exit_code == 0


def test_validate_says_what_lies_in_which_slab(job):
    slabs = ["--set", "run.devices=4", "--set", "run.slabs=2", "--set", "step.0.batch=16"]
    result = run("validate", job, *slabs)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "2 × 2 (groups of shots × slabs of the specimen)" in words
    assert "36 of 72 rows" in words
    assert "collective-permute" in words
    assert "20 rows on either side" in words
    assert "4 devices do not fall into groups of 3 slabs" in refused(
        "validate", job, *slabs, "--set", "run.slabs=3"
    )


def test_the_templates_for_clusters_start_every_process_again():
    """What they call exists, all ranks are counted, and no code of an unfinished run passes for success."""
    folder = Path(new.__file__).parent / "templates"
    shell = (folder / "slurm.sh").read_text()
    subprocess.run(["bash", "-n", folder / "slurm.sh"], check=True)
    assert {
        int(code) for code in re.search(r"case \$\? in ([\d| ]+)\)", shell)[1].split("|")
    } <= set(cli.EXIT_CODES.values())
    assert 143 in cli.EXIT_CODES.values()
    assert 0 not in cli.EXIT_CODES.values()
    assert "--resume" in shell
    yaml = pytest.importorskip("yaml")
    service, made = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    known = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert known["JAX_NUM_PROCESSES"] == str(spec["completions"]) == str(spec["parallelism"])
    assert known["JAX_COORDINATOR_ADDRESS"].startswith(
        f"{made['metadata']['name']}-0.{service['metadata']['name']}:"
    )
    assert "JAX_PROCESS_ID" in known
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["restartPolicy"] == "Never"  # an error of one is a new pod, whose rank is the same
    assert container["command"][:2] == ["jaxptycho", "run"]
    assert container["command"][-1] == "--resume"
    group = get_command(app)
    for line in (container["command"], re.search(r"^srun (.*)$", shell, re.M)[1].split()):
        assert {
            entry.name
            for entry in entry_points(group="console_scripts")
            if entry.dist.name == "jaxptycho"
        } == {line[0]}
        name, command, arguments = group.resolve_command(click.Context(group), line[1:])
        taken = command.make_context(
            name, arguments
        ).params  # raises for an option that is not there
        assert taken["resume"], taken
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?", shell, re.M))
    assert (
        options["signal"].partition("@")[0] == "TERM"
    )  # which a run hears, after which it ends with 143
    assert int(options["nodes"]) * int(options["ntasks-per-node"]) == 8


def test_debug_shows_the_error_itself(tmp_path):
    result = run("inspect", tmp_path / "nowhere.h5", "--debug")
    assert isinstance(result.exception, FileNotFoundError)
