"""Eight CPU devices, strict promotion, and the names that doctests use."""

import itertools
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def bounded_memory():
    """Drops compiled programs now and then: a worker of the whole suite grew to 5 GB of them."""
    yield
    if next(TESTS) % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Runs the test with 64-bit types enabled."""
    with jax.enable_x64(True):
        yield
