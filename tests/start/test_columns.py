"""Columns of atoms as the first object of a thick crystal."""

from dataclasses import replace

import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.start.columns import (
    STRENGTHS,
    WIDTH,
    column_shape,
    columns,
    pixel_axes,
    with_columns,
    with_strength,
)
from jaxptycho.start.direct_object import with_phase
from jaxptycho.start.guess import guess_model

SEMIANGLE, DEPTH = 0.0214, 60.0  # rad, Å
GRID = jp.Grid((32, 32), 0.22, 300.0)
SCAN = 0.5 * np.stack(np.meshgrid(*[np.arange(9)] * 2, indexing="ij"), -1).reshape(-1, 2)
PLACES = np.array([[1.0, 1.1], [1.0, 3.0], [2.9, 1.1], [2.9, 3.0]])  # Å


def test_columns_are_the_maxima_of_the_dark_field():
    axes = tuple(np.arange(-2.0, 6.0, 0.1) for _ in "yx")
    heights = np.array([1.0, 0.8, 0.6, 0.5])
    away = ((SCAN[:, None] - PLACES[None]) ** 2).sum(-1)
    signals = 5.0 + 100 * (heights**1.7 * np.exp(-away / (2 * 0.45**2))).sum(1)
    found, phases = columns(SCAN, signals, axes, 0.5)
    order = [np.argmin(np.linalg.norm(found - place, axis=1)) for place in PLACES]
    assert len(found) == len(PLACES)
    np.testing.assert_allclose(found[order], PLACES, atol=0.1)
    np.testing.assert_allclose(phases[order], heights, atol=0.06)


def test_a_column_is_a_gaussian():
    axes = tuple(0.05 * np.arange(101) for _ in "yx")
    shape = column_shape(np.array([[2.5, 2.0]]), np.array([0.7]), axes)
    assert shape[50, 40] == pytest.approx(0.7)
    assert shape.sum() * 0.05**2 == pytest.approx(0.7 * 2 * np.pi * WIDTH**2, rel=1e-3)


@pytest.fixture(scope="module")
def empty() -> jp.Model:
    """A model of ten empty slices."""
    about = {"semiangle_mrad": 1e3 * SEMIANGLE}
    blank = jp.Dataset(np.ones((len(SCAN), *GRID.shape)), SCAN, GRID, about=about)
    return guess_model(blank, thickness=DEPTH, slices=10, start="empty")


def measured(model: jp.Model) -> jp.Dataset:
    """Expected patterns of a model."""
    counts = np.asarray(jp.predict(model, np.arange(len(SCAN))), float)
    counts = 1e4 * np.fft.fftshift(counts, (1, 2)) / counts.sum((1, 2)).mean()
    return jp.Dataset(counts, SCAN, GRID, about={"semiangle_mrad": 1e3 * SEMIANGLE})


def test_the_strength_of_columns_is_that_of_the_crystal(empty):
    shape = column_shape(PLACES, np.ones(len(PLACES)), pixel_axes(empty))
    truth = replace(empty, specimen=with_phase(empty.specimen, GRID, 0.08 * DEPTH * shape))
    first = with_strength(empty, measured(truth), shape)
    found = float(first.specimen.phase.sum(0).max() / (DEPTH * shape.max()))
    assert abs(np.log(found / 0.08)) < np.log(STRENGTHS[1] / STRENGTHS[0])


def test_without_columns_the_specimen_begins_empty(empty):
    data = measured(empty)
    assert with_columns(empty, data, SEMIANGLE) is empty
    assert with_columns(empty, data, 2 * SEMIANGLE) is empty  # beyond what the camera sees
