"""What a job of a calibrated file holds."""

import numpy as np
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.jobs.calibrated import job_values
from jaxptycho.start.calibrate import Calibration
from jaxptycho.start.camera import measure_camera


def test_the_loss_of_sparse_counts_is_chosen_only_for_a_bright_field():
    """Speckles are dark in most pixels, however many counts the others have."""
    counts, places = blobs(side=12, dose=2e3)
    data = jp.Dataset(counts, places, GRID, about=ABOUT)
    look = Calibration(data, measure_camera(data), None, None)
    assert np.median(look.camera.mean) < 1
    assert look.rows()["variance_over_mean"].value < 1.5
    assert job_values(look, "scan.h5") == (
        {"data": {"file": "scan.h5"}, "step": [{"kind": "refine"}]},
        {},
    )
