"""The measurement of a job: layout of the scan, corrected counts, windows, a vacuum pattern."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

import jaxptycho as jp
from jaxptycho.cli.main import app
from jaxptycho.io.results import load
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.describe import describe
from jaxptycho.jobs.measurement import read_data, vacuum_of
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.runner import Runner, resume, start
from jaxptycho.start.guess import guess_model

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIDE = 6
LENS = jp.AberratedProbe(0.025, {"defocus": 60.0})
GRID = jp.Grid((32, 32), 0.3, 80.0)
DARK = np.random.default_rng(2).uniform(20, 40, (40, 36)).round()


def places():
    """Positions of the shots in the order of a serpentine, rotated by 30°."""
    y, x = np.indices((SIDE, SIDE)) * 1.2
    x[1::2] = x[1::2, ::-1]
    points = np.stack([y.ravel(), x.ravel()], -1)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    middle = points.mean(0)
    return (points - middle) @ np.array([[c, s], [-s, c]]) + middle


def clean():
    """Counts of a phase grating under the probe, shot by shot with numpy alone."""
    spectrum = np.asarray(LENS.spectrum(GRID)[0])
    probe = np.fft.fftshift(np.fft.ifft2(spectrum, norm="ortho"))
    y, x = (np.indices(GRID.shape) - 16) * 0.3
    gratings = (0.4 * np.cos(3.0 * (y + a)) * np.cos(2.3 * (x + b)) for a, b in places())
    exits = np.stack([probe * np.exp(1j * phase) for phase in gratings])
    expected = np.abs(np.fft.fft2(exits, norm="ortho")) ** 2
    expected *= 4e3 / expected.sum((1, 2), keepdims=True)
    return np.random.default_rng(0).poisson(np.fft.fftshift(expected, axes=(1, 2)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A camera of 40 × 36 pixels that is brighter than it should be, and a job that corrects it."""
    folder = tmp_path_factory.mktemp("camera")
    counts = clean()
    around = [(0, 0), (4, 4), (2, 2)]
    recorded = np.pad(counts, around) + DARK
    np.save(folder / "scan.npy", recorded.astype(np.uint16))
    np.save(folder / "clean.npy", counts)
    np.save(folder / "dark.npy", DARK)
    mask = np.ones((40, 36), bool)
    mask[10, 12] = False
    np.save(folder / "mask.npy", mask)
    vacuum = np.abs(jp.AberratedProbe(0.025, {}, 1e7).spectrum(GRID)[0]) ** 2
    np.save(folder / "vacuum.npy", np.pad(np.fft.fftshift(vacuum), around[1:]) + DARK)
    (folder / "scan.toml").write_text(
        """
[data]
file = "scan.npy"
voltage_kv = 80.0
detector_step_mrad = 4.35
dark_file = "dark.npy"
mask_file = "mask.npy"
threshold = 0.5
crop = [32, 32]
hold_out = 0.1
[scan]
shape = [6, 6]
step_angstrom = 1.2
order = "serpentine"
rotation_deg = 30.0
[probe]
semiangle_mrad = 25.0
defocus_angstrom = 60.0
[run]
devices = 1
checkpoint_every = 1
[[step]]
kind = "refine"
epochs = 2
batch = 18
[step.rates]
specimen = 0.02
"""
    )
    return folder


def test_a_job_makes_the_measurement_of_a_camera(folder):
    data = read_data(read_job(folder / "scan.toml"))
    np.testing.assert_allclose(data.positions[0], places(), atol=1e-12)
    expected = np.load(folder / "clean.npy")
    expected[:, 10 - 4, 12 - 2] = 0
    shown = np.fft.fftshift(data.patterns(0, np.arange(SIDE**2)), axes=(1, 2))
    np.testing.assert_array_equal(shown, expected)
    assert (~data.mask).sum() == 1
    np.testing.assert_allclose(1e3 * data.grid.wavelength * np.array(data.grid.dk), 4.35)


def test_steps_of_the_detector_are_those_before_bins(folder):
    job = read_job(folder / "scan.toml", ["data.bin=2", "data.pad=[20,24]"])
    data = read_data(job)
    assert data.grid.shape == (20, 24)
    np.testing.assert_allclose(1e3 * data.grid.wavelength * np.array(data.grid.dk), 8.7)
    np.testing.assert_allclose(
        data.grid.pixel, data.grid.wavelength / (8.7e-3 * np.array([20, 24]))
    )


def test_validate_and_inspect_know_them(folder):
    job = folder / "scan.toml"
    run = CliRunner().invoke
    rows = describe(job)
    assert "order = serpentine, rotation_deg = 30.0" in rows["scan"]
    assert "crop = [32, 32]" in rows["patterns"]
    checked = run(app, ["validate", str(job)])
    assert checked.exit_code == 0, checked.output
    given = ["scan.shape=[6,6]", "scan.step_angstrom=1.2", "data.voltage_kv=80"]
    given += ["detector_step_mrad=4.35", "data.crop=[30,32]", f'data.dark_file="{folder}/dark.npy"']
    seen = run(app, ["inspect", str(folder / "scan.npy"), *(f"--set={g}" for g in given)])
    assert "36 of 30 × 32 pixels" in seen.stdout


@pytest.mark.slow
def test_a_run_of_them_is_resumed_and_halved(folder, tmp_path):
    job = read_job(folder / "scan.toml", ["data.region_angstrom=[[0,0],[6,4]]", "figures.every=0"])
    whole = start(job, tmp_path / "whole")
    left = iter(range(3))
    part = start(job, tmp_path / "part", stop=lambda: None if next(left, None) else "a test")
    assert not part.finished
    again = resume(tmp_path / "part")
    np.testing.assert_array_equal(again.model.specimen.phase, whole.model.specimen.phase)
    text = (tmp_path / "part" / "run.toml").read_text()
    assert 'dark_file = "' in text
    assert load(tmp_path / "whole" / "result.h5").grid.shape == (32, 32)
    counts = [
        read_data(job.model_copy(update={"data": job.data.model_copy(update={"half": half})}))
        for half in ("all", "black", "white", "first", "second")
    ]
    assert counts[1].n_shots[0] + counts[2].n_shots[0] == counts[0].n_shots[0] < SIDE**2
    np.testing.assert_allclose(counts[3].dose() + counts[4].dose(), counts[0].dose())


def overlap(one, other):
    return abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize(("supersample", "extend"), [(1, 1), (2, 1), (1, 2)])
def test_a_vacuum_pattern_gives_the_aperture(folder, supersample, extend):
    """Of a probe whose aperture has a shape of its own, where the optics would make it round."""
    data = read_data(read_job(folder / "scan.toml"))
    spectrum = jp.AberratedProbe(0.025, {"defocus": 60.0}).spectrum(data.grid)[0]
    spectrum = np.fft.fftshift(np.asarray(spectrum))
    spectrum[14:, 19:] = 0
    vacuum = np.abs(spectrum) ** 2
    more = {"vacuum": vacuum, "defocus": 60.0, "semiangle": 0.025, "descan": "none"}
    data.about.pop("semiangle_mrad", None)
    found = guess_model(data, **more, supersample=supersample, extend=extend)
    wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum)))
    assert found.grid.shape == tuple(32 * supersample * extend for _ in range(2))
    if extend > 1:
        fine = np.pad(spectrum, 16)
        wave = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(fine)))
    if supersample > 1:
        wave = np.pad(wave, 16)
    assert overlap(found.probe.waves[0], wave) > 0.97
    plain = guess_model(data, **more | {"probe": "optics"}, supersample=supersample, extend=extend)
    assert overlap(plain.probe.waves[0], wave) < 0.95


def test_a_job_reads_its_vacuum_pattern(folder):
    job = read_job(folder / "scan.toml", ['data.vacuum_file="vacuum.npy"', "data.bin=2"])
    data = read_data(job)
    vacuum = vacuum_of(job, data)
    intensity = np.abs(jp.AberratedProbe(0.025, {}, 1e7).spectrum(GRID)[0]) ** 2
    binned = np.fft.fftshift(intensity).reshape(16, 2, 16, 2).sum((1, 3))
    binned[~data.mask] = 0
    np.testing.assert_allclose(vacuum, binned, rtol=1e-5, atol=1e-3)
    waves = build_model(job, data).probe.waves
    assert waves.shape == (1, 16, 16)
    assert Runner(job, folder / "unused").check() is not None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data.crop=[64,64]"], "rows -12 to 52 and columns -14 to 50 are not within"),
        (["data.bin=3"], r"2 × 2 remain; crop them to \[30, 30\] first"),
        (['data.dark_file="clean.npy"'], "the image of dark_file is 32 × 32 pixels"),
        (['data.vacuum_file="clean.npy"'], "vacuum_file = .*clean.npy"),
        (["scan.affine=[[1,2],[2,4]]"], "an invertible matrix"),
        (['scan.order="snake"'], "no such order of a scan; known are"),
        (["detector.effective_distance_angstrom=500"], "of in-line holograms"),
        (['probe.start="vacuum"'], "in a job data.vacuum_file"),
        (["data.region_angstrom=[[90,90],[99,99]]"], "holds none of the 36 shots"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words, folder):
    arguments = ["validate", str(folder / "scan.toml"), *(f"--set={s}" for s in settings)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert re.search(words, " ".join(result.stderr.split())), result.stderr


def test_a_series_takes_the_orientation_but_no_raster():
    volume = {"kind": "volume", "size_angstrom": [9.0, 9.0, 9.0]}
    job = {"data": {"file": "tilts.h5"}, "specimen": volume}
    assert make_job(job | {"scan": {"rotation_deg": 12.5}}).scan.rotation_deg == 12.5
    with pytest.raises(ValueError, match=r"scan\.order does not apply to a tilt series"):
        make_job(job | {"scan": {"order": "serpentine"}})
