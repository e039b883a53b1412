"""Optax needs JAX's own promotion; and what takes turns takes no rests."""

import jax
import pytest

from gradtx.bench import measure


@pytest.fixture(autouse=True)
def usual_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(measure, "_REST", 0.0)
    monkeypatch.setattr(measure, "BANDWIDTH_ELEMENTS", 1000)
