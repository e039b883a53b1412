"""One trace for equal shapes and equal constants; leaves that are not arrays stay what they are."""

import jax
import jax.numpy as jnp
import pytest

from gradtx.core.compiled import call_compiled

TRACED = []


def function(x, options):
    TRACED.append(options)
    return x * options["factor"] if options["how"] is None else options["how"](x)


def test_traces_once_for_each_constant():
    TRACED.clear()
    x = jnp.asarray(2.0)
    for y in (x, x + 1):
        assert call_compiled(function, y, {"factor": 3.0, "how": None}) == 3 * y
    assert len(TRACED) == 1
    assert call_compiled(function, x, {"factor": 4.0, "how": None}) == 8
    assert call_compiled(function, x, {"factor": 4.0, "how": jnp.negative}) == -2
    assert len(TRACED) == 3 and TRACED[-1]["how"] is jnp.negative


def test_numbers_of_different_types_differ():
    x = jnp.arange(2)
    with jax.numpy_dtype_promotion("standard"):
        for factor, dtype in ((1, jnp.int32), (1.0, jnp.float32), (True, jnp.int32)):
            result = call_compiled(function, x, {"factor": factor, "how": None})
            assert result.dtype == dtype
            assert type(TRACED[-1]["factor"]) is type(factor)


def test_arrays_may_be_traced_and_constants_must_be_hashable():
    doubled = jax.vmap(lambda f: call_compiled(function, f, {"factor": 2.0, "how": None}))
    assert jnp.array_equal(doubled(jnp.asarray([1.0, 2.0])), jnp.asarray([2.0, 4.0]))
    with pytest.raises(ValueError, match="hash"):
        call_compiled(function, jnp.asarray(1.0), {"factor": {1, 2}, "how": None})
