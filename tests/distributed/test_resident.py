"""Which patterns stay on the devices; what runs do with them is tested in app/test_run.py and app/test_reading.py."""

import jax
import numpy as np
import pytest

from jaxptycho import Dataset, Grid
from jaxptycho.distributed import device_cache as resident

GRID = Grid((8, 8), 0.5, voltage_kv=200.0)
BYTES = 2 * 3 * 8 * 8 * 2  # two views of three patterns of 8², two bytes each


def series(second=np.uint16) -> Dataset:
    counts = [np.ones((3, 8, 8), np.uint16), np.ones((3, 8, 8), second)]
    return Dataset(counts, [np.zeros((3, 2))] * 2, GRID)


@pytest.mark.parametrize(
    ("platform", "memory", "second", "stay"),
    [
        ("gpu", BYTES / resident.MAX_FRACTION, np.uint16, True),
        (
            "gpu",
            BYTES / resident.MAX_FRACTION - 4,
            np.uint16,
            False,
        ),  # a quarter of the device would not hold them
        ("gpu", None, np.uint16, False),  # nobody says how much there is
        ("gpu", 1e12, np.float32, False),  # one table has one type
        ("cpu", 1e12, np.uint16, False),
    ],
)
def test_patterns_of_one_type_stay_where_they_take_their_share(
    monkeypatch, platform, memory, second, stay
):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(resident, "device_memory", lambda: memory)
    assert resident.fits(series(second)) is stay
