"""A run whose specimen lies in slabs."""

import numpy as np
import pytest

from jaxptycho.app.jobs import make_job
from jaxptycho.app.run import start


@pytest.mark.slow
def test_a_run_in_slabs_learns_as_one(values, tmp_path):
    whole = start(make_job(values), tmp_path / "whole")
    split = start(make_job(values | {"run": {"devices": 4, "slabs": 2}}), tmp_path / "split")
    assert split.finished
    rows = whole.model.specimen.phase.shape[1]
    assert split.model.specimen.phase.shape[1] == rows + rows % 2
    np.testing.assert_allclose(split.history[-1].loss, whole.history[-1].loss, rtol=0.05)  # other batches
    np.testing.assert_allclose(split.fit["chi2"], whole.fit["chi2"], rtol=0.05)
