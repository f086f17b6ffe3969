"""Jobs whose steps calibrate the geometry between epochs."""

import csv

import numpy as np
import pytest

from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.runs.progress import ProgressListener

pytestmark = pytest.mark.usefixtures("undrawn", "quick_to_compile")


class Listening(ProgressListener):
    """Keeps all that is said."""

    def __init__(self):
        self.texts = []

    def say(self, text):
        self.texts.append(text)


@pytest.fixture
def job_of(values):
    def make(rates=("specimen", "probe", "scan"), **keys):
        step = {"kind": "refine", "epochs": 2, "batch": 16, "rates": dict.fromkeys(rates, 2e-2)}
        return make_job(values | {"step": [step | keys]})

    return make


def test_numbers_are_refined_reported_and_written(job_of, tmp_path):
    listener = Listening()
    names = ["scan.rotation", "scan.scale"]
    outcome = start(job_of(calibration=names, calibration_shots=16), tmp_path / "run", listener)
    said = [text for text in listener.texts if text.startswith("calibration after epoch 2")]
    assert len(said) == 1
    assert "scan.rotation" in said[0]
    assert "±" in said[0]
    with (tmp_path / "run" / "calibration.csv").open() as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    assert set(rows) == set(names)
    assert 0 < float(rows["scan.scale"]["error"]) < 0.1
    assert np.isfinite(outcome.fit["chi2"])


@pytest.mark.parametrize(
    ("rates", "names", "words"),
    [
        (["specimen"], ["scan.turn"], "the numbers of a scan are scan.scale"),
        (["specimen", "probe"], ["probe.defocus"], "free waves"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_a_run(job_of, tmp_path, rates, names, words):
    with pytest.raises(ValueError, match=words):
        start(job_of(rates, calibration=names), tmp_path / "run")
    assert not (tmp_path / "run").exists()
