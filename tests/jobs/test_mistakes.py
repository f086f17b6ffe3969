"""Mistakes of a user: one sentence with the true cause, exit code 2, nothing written, never a traceback."""

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models import thin
from typer.testing import CliRunner

from jaxptycho import FreeScan, PerShot, SliceStack, load, read, write
from jaxptycho.analysis.scanned import outline
from jaxptycho.cli.errors import sentence
from jaxptycho.cli.main import app
from jaxptycho.jobs import halves
from jaxptycho.jobs.reading import read_job
from jaxptycho.start import guess

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # cautions, as these patterns are noise
PLACES = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0)), -1).reshape(-1, 2)
ABOUT = {
    "voltage_kv": 80.0,
    "pixel_angstrom": 0.3,
    "semiangle_mrad": 25.0,
    "defocus_angstrom": 50.0,
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(name="scan.h5", places=PLACES, attributes=None, **datasets):
    """A native file of 16 patterns with other attributes and datasets; None leaves one out."""
    counts = np.random.default_rng(0).poisson(9, (len(places), 16, 16)).astype(np.uint16)
    with h5py.File(name, "w") as file:
        file.attrs.update(ABOUT | (attributes or {}))
        for key, value in ({"counts": counts, "positions": places} | datasets).items():
            if value is not None:
                file[key] = value
    return name


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments) -> str:
    """The one sentence with which a command ends, having written nothing."""
    before = sorted(Path.cwd().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert sorted(Path.cwd().rglob("*")) == before
    return line


WRONG_ATTRIBUTES = {
    "text": ({"voltage_kv": "80"}, "voltage_kv = '80'; expected one number, not text"),
    "bytes": ({"semiangle_mrad": np.bytes_("25")}, "semiangle_mrad = '25'"),
    "texts": ({"defocus_angstrom": ["50"]}, "not text"),
    "a pair of texts": ({"pixel_angstrom": ["0.3", "0.3"]}, "not text"),
    "a truth value": ({"voltage_kv": True}, "voltage_kv = True"),
    "complex": ({"voltage_kv": 80 + 0j}, "voltage_kv"),
    "nothing": ({"voltage_kv": h5py.Empty("f8")}, "voltage_kv"),
    "two of one": ({"voltage_kv": np.array([80.0, 80.0])}, "voltage_kv"),
    "infinite": ({"defocus_angstrom": np.inf}, "defocus_angstrom"),
    "another format": ({"format": np.array([1, 2])}, "jaxptycho-dataset"),
    "another version": ({"version": np.array([1, 2])}, "version"),
}


@pytest.mark.parametrize("name", WRONG_ATTRIBUTES)
def test_attributes_that_are_no_numbers_are_refused(name):
    attributes, words = WRONG_ATTRIBUTES[name]
    assert words in refused("inspect", measured(attributes=attributes))


@pytest.mark.parametrize(
    "voltage", [80, np.float32(80), np.array([80.0]), np.array(80, ">i2"), np.array([[80.0]])]
)
def test_one_number_is_a_number_however_it_is_stored(voltage):
    assert "80 kV" in run("inspect", measured(attributes={"voltage_kv": voltage})).output


WAVE = np.exp(-((np.indices((16, 16)) - 8.0) ** 2).sum(0) / 9)
WRONG_DATASETS = {
    "tilts as text": ({"tilt_deg": ["0"]}, "/tilt_deg in scan.h5 came as text"),
    "complex tilts": ({"tilt_deg": np.zeros(1, complex)}, "complex128"),
    "no tilts": ({"tilt_deg": h5py.Empty("f8")}, "/tilt_deg in scan.h5 holds nothing"),
    "a probe of text": (
        {"probe_guess": np.full((16, 16), b"1")},
        "the guess of the probe came as text",
    ),
    "a probe of records": (
        {"probe_guess": np.zeros((16, 16), [("re", "f4"), ("im", "f4")])},
        "guess of the probe",
    ),
    "a probe of zeros": ({"probe_guess": np.zeros((16, 16))}, "zero everywhere"),
    "no modes": ({"probe_guess": np.zeros((0, 16, 16))}, "(0, 16, 16)"),
    "a mask of text": ({"mask": np.full((16, 16), b"1")}, "the mask came as text"),
    "a mask of NaN": ({"mask": np.full((16, 16), np.nan)}, "not finite"),
    "positions as text": ({"positions": np.full((16, 2), b"1")}, "positions came as text"),
    "complex positions": ({"positions": PLACES + 0j}, "complex128"),
    "no positions": ({"positions": h5py.Empty("f8")}, "/positions in scan.h5 holds nothing"),
    "no counts": ({"counts": h5py.Empty("u2")}, "/counts in scan.h5 holds nothing"),
    "a scalar for counts": ({"counts": 3}, "has shape ()"),
    "complex counts": ({"counts": np.ones((16, 16, 16), complex)}, "complex128"),
    "views that are no group": ({"views": 3}, "/views in scan.h5 is no group of views"),
    "a link that is a circle": ({"counts": h5py.SoftLink("/counts")}, "scan.h5"),
    "a link to nowhere": ({"probe_guess": h5py.SoftLink("/nowhere")}, "/probe_guess"),
    "a link to a lost file": ({"mask": h5py.ExternalLink("lost.h5", "/mask")}, "/mask"),
}


@pytest.mark.parametrize("name", WRONG_DATASETS)
def test_datasets_that_hold_no_such_numbers_are_refused(name):
    datasets, words = WRONG_DATASETS[name]
    assert words in refused("inspect", measured(**datasets))


SOUND = {
    "a big-endian probe": {"probe_guess": WAVE.astype(">c16")},
    "a real big-endian probe": {"probe_guess": WAVE.astype(">f4")},
    "a probe of halves": {"probe_guess": WAVE.astype(np.float16)},
    "big-endian positions": {"positions": PLACES.astype(">f8")},
    "whole positions": {"positions": PLACES.astype(">i2")},
    "a big-endian tilt": {"tilt_deg": np.zeros(1, ">f4")},
    "a mask of integers": {"mask": np.ones((16, 16), ">i4")},
    "big-endian counts": {"counts": np.full((16, 16, 16), 9, ">u2")},
    "counts of halves": {"counts": np.full((16, 16, 16), 9, np.float16)},
}


@pytest.mark.parametrize("name", SOUND)
def test_every_type_of_number_makes_a_first_model(name):
    model = guess.first_model(read(measured(**SOUND[name])))
    assert np.isfinite(np.asarray(model.probe.waves)).all()


def test_an_object_larger_than_the_machine_is_refused_before_it_is_made(monkeypatch):
    assert run("new", measured(places=5e4 * PLACES)).exit_code == 0
    monkeypatch.setattr(guess, "memory_bytes", lambda: 16 * 2.0**30)
    words = refused("validate", "scan.toml")
    assert "extend over 1.5e+05 × 1.5e+05 Å" in words
    assert "this machine has 16" in words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MemoryError(
                "Unable to allocate 3.64 TiB for an array with shape (10, 20) and data type float32"
            ),
            "3.64 TiB",
        ),
        (MemoryError(), "not enough memory"),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 1099511627776 bytes."
            ),
            "1024 GiB",
        ),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.05GiB."
            ),
            "1.05 GiB",
        ),
        (jax.errors.JaxRuntimeError("INTERNAL: a kernel failed\nfurther"), "a kernel failed"),
    ],
)
def test_what_a_device_or_the_memory_refuses_is_one_sentence(error, words, monkeypatch):
    def fails(path, known):
        raise error

    monkeypatch.setattr("jaxptycho.jobs.describe.describe", fails)
    line = refused("inspect", "scan.h5")
    assert words in line
    assert ("step.N.batch" in line) == ("INTERNAL" not in str(error))
    assert sentence(error) in line


def result(name, places):
    scan = FreeScan(PerShot(jnp.asarray(places, float)))
    specimen = SliceStack(jnp.zeros((1, 90, 90)), None, jnp.asarray(0.0), jnp.asarray([-5.0, -5.0]))
    write(name, thin(scan=scan, specimen=specimen))
    return name


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([[1.0, 1.0]], "1 positions of the scan are too few"),
        ([[0.0, 0.0], [5.0, 5.0]], "2 positions of the scan are too few"),
        (
            [[0.0, 0.0], [2.0, 3.0], [4.0, 6.0], [6.0, 9.0]],
            "4 positions of the scan are on one line",
        ),
        ([[3.0, x] for x in range(9)], "9 positions of the scan are on one line"),
        ([[1.0, 1.0]] * 4, "on one line"),
    ],
)
def test_results_without_a_scanned_area_are_not_compared(places, words):
    area = result("area.h5", [[y, x] for y in range(8) for x in range(8)])
    assert words in refused("compare", area, result("other.h5", places))


def test_a_scan_seen_from_anywhere_encloses_an_area():
    turned = np.array([[y, x] for y in range(8) for x in range(8)]) @ [[0.6, -0.8], [0.8, 0.6]]
    assert outline(load(result("one.h5", turned))).find_simplex(turned.mean(0)) >= 0


@pytest.fixture
def jobs():
    """Names of a job of every kind."""
    measured()
    series = np.random.default_rng(0).poisson(9, (3, 16, 16, 16)).astype(np.uint16)
    measured(
        "tilts.h5", counts=series, positions=np.stack([PLACES] * 3), tilt_deg=[-20.0, 0.0, 20.0]
    )
    for file in ("scan.h5", "tilts.h5", "strontium_titanate"):
        assert run("new", file).exit_code == 0
    return {"run": "scan.toml", "series": "tilts.toml", "simulate": "strontium_titanate.toml"}


def test_halves_are_those_of_a_measurement(jobs):
    assert "halves are those of a measurement" in refused(
        "halves", jobs["simulate"], "--out", "run"
    )
    assert "strontium_titanate" in run("inspect", jobs["simulate"]).output


def test_a_job_of_few_sections_has_its_defaults(here):
    (here / "job.toml").write_text('[data]\nfile = "scan.h5"\n')
    assert read_job("job.toml").data.file == str(here / "scan.h5")
    (here / "typo.toml").write_text('[data]\nfile = "scan.h5"\n[stepp]\nepochs = 3\n')
    with pytest.raises(ValueError, match=r"no key stepp; did you mean step\?"):
        read_job("typo.toml")


RATES = {
    "scan.position=1e-3": "did you mean scan.positions?",
    "specimen.transmision=1e-3": "did you mean specimen.transmission?",
    "probe.wave=1e-3": "did you mean probe.waves?",
    '"scan.position"=1e-3': "did you mean scan.positions?",
    "detector.gain=1e-3": "no parameter 'detector.gain'",
    "prob=1e-3": "did you mean probe?",
}


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("rate", RATES)
def test_rates_of_fields_that_no_part_has_are_refused(rate, optimiser, jobs):
    settings = ["--set", f"step.0.rates.{rate}", "--set", f"step.0.optimiser={optimiser}"]
    assert RATES[rate] in refused("validate", jobs["run"], *settings)


@pytest.mark.parametrize(
    "key", ["scan.positions", '"scan.positions"', "scan.positions.rate", '"scan.positions".rate']
)
def test_rates_of_fields_are_set_with_and_without_quotes(key, jobs):
    rates = read_job("scan.toml", [f"step.0.rates.{key}=0.004"]).step[0].rates
    assert {name: rate.rate for name, rate in rates.items()} == {"scan.positions": 0.004}


def test_settings_reach_what_a_job_leaves_to_the_defaults(here):
    (here / "job.toml").write_text('[data]\nfile = "scan.h5"\n')
    job = read_job(
        "job.toml", ["step.0.epochs=7", "step.0.rates.scan=0.01", "step.0.rates.scan.start=3"]
    )
    assert job.step[0].epochs == 7
    assert {name: rate.rate for name, rate in job.step[0].rates.items()} == {"scan": 0.01}
    assert job.step[0].rates["scan"].start == 3
    (here / "plain.toml").write_text(
        '[data]\nfile = "scan.h5"\n[[step]]\nkind = "refine"\n[step.rates]\nscan.positions = 0.01\n'
    )
    assert read_job("plain.toml").step[0].rates["scan.positions"].rate == 0.01


SETTINGS = {
    "data=3": "data = 3: it is a section, whose keys are file,",
    "step=3": "step = 3: it is a list of sections",
    "step={kind='refine'}": "step is a list of sections; begin each of them with [[step]]",
    "steps.0.epochs=1": "there is no steps; did you mean step?",
    "step.0.specimen=3": "there is no key step.0.specimen; did you mean the section [specimen]?",
    "specimen.slices=3": "in a job it is specimen.thickness_angstrom",
    "run.devices=99": "99 devices are asked for",
    "step.0=3": "step.0 = 3: it is a section, one of several kinds",
    "probe=[1]": "it is a section",
    "step.5.epochs=1": "there is no step.5; known are step.0",
    "step.epochs=1": "step has several entries, counted from 0; name one, as in step.0",
    "step.-1.epochs=1": "counted from 0",
    "step[0].epochs=1": "'step[0].epochs' is no key",
    "=3": "is no key",
    "epochs": "the form key=value is required",
    "data.file.x=3": "data.file is a value",
    "step.0.constraint.0.kind=positivity": "there is no step.0.constraint.0",
    "step.0.rates.specimen=fast": "step.0.rates.specimen",
    "probe.semiangle=20.0": "did you mean semiangle_mrad?",
    "detector.mtf_file=scan.toml": "detector.mtf_file",
    "detector.mtf_file=nowhere.txt": "there is no such file",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_that_have_no_place_are_explained(setting, jobs):
    assert SETTINGS[setting] in refused("validate", "scan.toml", "--set", setting)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gold_nanoparticle", "gold_nanoparticle is neither a file nor a phantom; "),
        ("stronium_titanate", "did you mean strontium_titanate? phantoms are "),
        ("Strontium_Titanate", "did you mean strontium_titanate?"),
        ("lost/scan.h5", "lost/scan.h5 is neither a file nor a phantom"),
    ],
)
def test_a_new_job_of_nothing_names_the_phantoms(name, words):
    line = refused("new", name)
    assert words in line
    assert "strontium_titanate" in line


def test_folders_that_are_no_runs_are_called_so(here):
    (here / "folder").mkdir()
    (here / "store.zspy").mkdir()
    (here / "store.zspy" / ".zgroup").write_text("{}")
    (here / "begun").mkdir()
    (here / "begun" / "run.toml").write_text('[data]\nfile = "scan.h5"\n')
    result("result.h5", PLACES)
    for command in (["inspect"], ["compare", "result.h5"], ["export"]):
        after = ["out.mrc"] if command == ["export"] else []
        assert "the folder folder is no run: it holds no result.h5" in refused(
            *command, "folder", *after
        )
        assert "store.zspy is a Zarr store" in refused(*command, "store.zspy", *after)
        if command != ["inspect"]:
            assert "jaxptycho resume begun" in refused(*command, "begun", *after)
    assert "Zarr store" in refused("new", "store.zspy")
    assert "is a folder, and a job file" in refused("run", "folder")
    assert "begun/run.toml" in refused("run", "begun")
    assert "folder is no run" in refused("resume", "folder")
    assert "nowhere does not exist" in refused("resume", "nowhere")
    assert "such as begun" in refused("resume", "begun/run.toml")


def test_files_of_another_kind_are_called_so(here):
    measured()
    (here / "empty.toml").write_text("")
    (here / "bytes.toml").write_bytes(bytes(range(256)))
    (here / "deep.toml").write_text("a = " + "[" * 5000)
    assert "scan.h5 is an HDF5 file, and a job file (TOML) is required" in refused(
        "validate", "scan.h5"
    )
    needed = "scan.h5 is a measurement, and a result is required here"
    assert needed in refused("export", "scan.h5", "out.mrc")
    assert needed in refused("compare", "scan.h5", "scan.h5")
    assert "empty.toml is empty" in refused("run", "empty.toml")
    for verb in ("inspect", "calibrate"):
        assert "nowhere.mib is not there; check the path" in refused(verb, "nowhere.mib")
    assert "not valid TOML" in refused("run", "bytes.toml")
    assert "not valid TOML" in refused("run", "deep.toml")
    assert "there is no folder lost for lost/job.toml" in refused(
        "new", "scan.h5", "--out", "lost/job.toml"
    )


def test_what_cannot_be_written_is_named_as_the_user_named_it(here):
    result("result.h5", PLACES)
    measured()
    assert "there is no folder lost for lost/x.mrc; " in refused(
        "export", "result.h5", "lost/x.mrc"
    )
    assert "result.h5/x.mrc is a file, and a folder" in refused(
        "export", "result.h5", "result.h5/x.mrc"
    )
    assert "error: scan.h5 exists and is not overwritten" in refused(
        "run", "scan.h5", "--out", "scan.h5"
    )


TOO_FEW = {
    "a single shot has no halves": PLACES[:1],
    "on one line": np.stack([np.zeros(16), np.arange(16.0)], -1),
    "at least 8 × 8 are required": PLACES * 0.5,
    "1 positions of the scan are too few": PLACES[:2],
}


@pytest.mark.parametrize("words", TOO_FEW)
def test_halves_that_cannot_be_compared_are_not_computed(words, monkeypatch):
    measured(places=TOO_FEW[words])
    assert run("new", "scan.h5").exit_code == 0
    monkeypatch.setattr(halves, "start", None)
    assert words in refused("halves", "scan.toml", "--out", "both")


@pytest.mark.parametrize("by", ["positions", "counts"])
def test_both_halves_are_drawn_before_one_is_computed(by, jobs, monkeypatch):
    """A mistake that only the second half meets ends both."""
    made, drawn = halves.Runner, []

    def runner(job, folder):
        drawn.append(job.data.half)
        if len(drawn) == 2:
            raise ValueError("a pattern of this half holds no counts")
        return made(job, folder)

    monkeypatch.setattr(halves, "Runner", runner)
    monkeypatch.setattr(halves, "start", None)
    assert "a pattern of this half" in refused("halves", jobs["run"], "--by", by, "--out", "both")
    assert drawn == list(halves.HALVES[by])
