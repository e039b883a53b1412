"""Optax promotes where the other tests refuse it."""

import jax
import pytest


@pytest.fixture
def promotion():
    """Runs the test with JAX's usual promotion of dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield
