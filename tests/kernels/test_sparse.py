"""Splines and sparse products against dense matrices: any width, mapped, differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxptycho import kernels

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def random(*shape, dtype=float):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype))


def close(found, wanted):
    return np.abs(found - wanted).max() < 20 * np.finfo(found.dtype).eps * np.abs(wanted).max()


def sparse(terms, rows, sources, dtype=float, groups=1):
    """A matrix, as columns and values of each row, and dense."""
    column = np.random.default_rng(terms).integers(0, sources, (groups, terms, rows // groups))
    value = np.asarray(random(*column.shape, dtype=dtype))
    dense = np.zeros((groups, rows // groups, sources), dtype)
    np.add.at(dense, (np.arange(groups)[:, None, None], np.arange(rows // groups), column), value)
    dense = dense.reshape(rows, sources)
    return (jnp.asarray(column, jnp.int32), jnp.asarray(value)), dense


def both(dense):
    """All entries of a dense matrix and of its transpose, as columns and values."""
    for matrix in (dense, dense.T):
        rows, sources = matrix.shape
        yield jnp.asarray(np.repeat(np.arange(sources)[:, None], rows, 1)[None], jnp.int32)
        yield jnp.asarray(matrix.T[None])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 7, 1), (12, 3, 16), (9, 8, 21), (4, 6, 150)], ids=str)
def test_splines_solve_their_equations(shape, dtype):
    found = kernels.spline_coefficients(values := random(*shape, dtype=dtype))
    along = [(4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6 for n in shape[:2]]
    assert found.dtype == dtype
    assert close(np.einsum("ap,bq,pqc->abc", *along, np.asarray(found)).astype(dtype), values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("width", [1, 16, 37, 150])
def test_products_are_those_of_the_matrix(width, groups, dtype):
    (column, value), dense = sparse(3, 12, 6, dtype, groups)
    _, _, *back = both(dense)
    rows, other = random(6, width, dtype=dtype), random(12, width, dtype=dtype)
    found, pull = jax.vjp(lambda rows: kernels.sparse_product(column, value, *back, rows), rows)
    assert found.dtype == dtype
    assert close(found, dense @ rows)
    assert close(pull(other)[0], dense.T @ other)


@pytest.mark.usefixtures("cpu_llvm")
def test_gradients_scatter_and_leave_the_transpose_alone():
    (column, value), dense = sparse(3, 11, 6)
    _, _, *back = both(dense)
    wrong = back[0], back[1] * jnp.nan
    pull = jax.jit(
        lambda other: jax.vjp(
            lambda r: kernels.sparse_product(column, value, *wrong, r), random(6, 4)
        )[1](other)[0]
    )
    assert close(pull(random(11, 4)), dense.T @ random(11, 4))


@pytest.mark.parametrize("width", [5, 37])
def test_products_of_coefficients(width):
    (column, value), dense = sparse(3, 12, 6, groups=2)
    _, _, *back = both(dense)
    rows, other = random(6, width), random(12, width)
    along = [np.linalg.inv((4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6) for n in (2, 3)]
    splined = dense @ np.kron(*along)

    def turned(value, rows):
        return kernels.sparse_product(column, value, *back, rows, (2, 3))

    found, pull = jax.vjp(jax.jit(turned), value, rows)
    assert close(found, splined @ rows)
    by_value, by_rows = pull(other)
    assert close(by_rows, splined.T @ other)
    _, along_value = jax.jvp(turned, (value, rows), (value, jnp.zeros_like(rows)))
    assert close(along_value, splined @ rows)  # linear in the values
    assert close(jnp.sum(by_value * value), jnp.sum(other * found))


def test_derivatives_by_rows_and_values():
    _, dense = sparse(3, 5, 4)
    column, value, *back = both(dense)

    @jax.jit
    def function(value, rows):
        return jnp.sum(
            kernels.sparse_product(column, value, back[0], jnp.zeros_like(back[1]) + value.mT, rows)
            ** 3
        )

    check_grads(function, (value, random(4, 3)), 2, ("fwd", "rev"), atol=1e-3, rtol=1e-3)
    check_grads(
        jax.jit(lambda v: jnp.sum(kernels.spline_coefficients(v) ** 3)),
        (random(3, 4, 2),),
        2,
        ("fwd", "rev"),
        atol=1e-3,
        rtol=1e-3,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maps_over_rows_and_over_matrices(axis):
    _, dense = sparse(3, 5, 4)
    column, value, *back = both(dense)
    many = random(4, 3, 2)
    rows = jnp.moveaxis(many, 2, axis)
    found = jax.vmap(lambda r: kernels.sparse_product(column, value, *back, r), axis, axis)(rows)
    assert close(jnp.moveaxis(found, axis, 2), np.einsum("ab,bcd->acd", dense, many))
    factors = jnp.array([1.0, 2.0])
    scaled = jax.vmap(lambda f, r: kernels.sparse_product(column, f * value, *back, r), (0, axis))(
        factors, rows
    )
    assert close(scaled, np.einsum("d,ab,bcd->dac", factors, dense, many))
    several = jax.vmap(kernels.spline_coefficients, axis, axis)(
        jnp.moveaxis(random(4, 3, 2, 5), 3, axis)
    )
    assert close(
        jnp.moveaxis(several, axis, 3)[..., 1],
        kernels.spline_coefficients(random(4, 3, 2, 5)[..., 1]),
    )
