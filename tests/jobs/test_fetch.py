"""Data to try: simulated by name, downloaded with a hash, or a page to look at."""

import hashlib
import re

import pytest
from typer.testing import CliRunner

from jaxptycho import read
from jaxptycho.cli.main import app
from jaxptycho.jobs.fetch import fetch, registry
from jaxptycho.jobs.simulation import check_simulation
from jaxptycho.jobs.steps.simulate import SimulateStep
from jaxptycho.jobs.template_files import template_text, templates

SMALL = """
[small]
about = "four patterns"
licence = "free"
file = "small.h5"
[small.simulate]
specimen = {phantom = "copper_phthalocyanine"}
microscope = {voltage_kv = 80.0, semiangle_mrad = 25.0, defocus_angstrom = 30.0}
scan = {shape = [2, 2], step_angstrom = 1.0, dose_per_square_angstrom = 1e5}
detector = {pixels = 16, pixel_angstrom = 0.4}
sampling = {pixel_angstrom = 0.4, slice_angstrom = 4.0}
"""


def simulated() -> list[str]:
    return [name for name, entry in registry().items() if entry.simulate is not None]


@pytest.mark.parametrize("name", simulated())
def test_simulated_sets_can_be_made(name):
    step = SimulateStep.model_validate({"kind": "simulate"} | registry()[name].simulate)
    assert check_simulation(step)


def test_every_template_has_data_to_try():
    known = registry()
    assert {entry.template for entry in known.values()} - {None} <= set(templates())
    for template in templates():
        text = template_text(template)
        if 'kind = "simulate"' not in text:
            name = re.search(r"jaxptycho fetch (\w+)", text)[1]
            assert known[name].template == template


def test_a_set_is_simulated_by_name(tmp_path):
    (tmp_path / "own.toml").write_text(SMALL)
    out = tmp_path / "a.h5"
    given = ["fetch", "small", "--registry", str(tmp_path / "own.toml"), "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    assert f"next: jaxptycho new {out}" in result.output
    assert read(out).n_shots == [4]
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2
    assert "is never overwritten" in again.stderr


def test_an_archive_is_checked(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    (tmp_path / "there.h5").write_bytes(b"counts")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")

    def own(digest: str):
        text = f"""
[one]
about = "one"
licence = "free"
file = "one.h5"
url = "file://{tmp_path}/there.h5"
sha256 = "{digest}"
"""
        (tmp_path / "own.toml").write_text(text)
        return tmp_path / "own.toml"

    class Copied:
        def __call__(self, url, output_file, pooch):
            (tmp_path / "there.h5").rename(output_file)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: Copied())
    good = hashlib.sha256(b"counts").hexdigest()
    path, _ = fetch("one", tmp_path / "one.h5", own(good))
    assert path.read_bytes() == b"counts"


BAD = {
    "colour": "no data are called colour; known are",
    "bilayr": "did you mean bilayer",
    "rotavirus": "download it there",
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_fetched_is_one_sentence(tmp_path, name):
    result = CliRunner().invoke(app, ["fetch", name, "--out", str(tmp_path / "a.h5")])
    assert result.exit_code == 2
    assert BAD[name] in result.stderr


def test_a_registry_with_a_mistake_is_named(tmp_path):
    (tmp_path / "own.toml").write_text('[one]\nabout = "a"\nlicence = "b"\nfile = "c"\n')
    with pytest.raises(ValueError, match="one of simulate, url and page is required"):
        registry(tmp_path / "own.toml")
