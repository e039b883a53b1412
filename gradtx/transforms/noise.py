"""Gradient noise (Neelakantan et al., 2015, arXiv:1511.06807)."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.hashing import hashed_normal, pcg_hash
from gradtx.core.hyper import Hyper, as_float, check_nonnegative
from gradtx.core.leaf import is_optimised, map_leaves
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Key, Params, State, Updates
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static

# What made a key of the old style, by its shape.
_OLD_KEYS = {(2,): "threefry2x32", (4,): "rbg"}


class AddNoiseState(NamedTuple):
    """The number of steps, and the key that all noise is drawn from."""

    count: Count  # type: ignore[assignment]
    rng_key: Key


def noise_rule(u: jax.Array, noise: jax.Array, *, deviation: Hyper) -> jax.Array:
    return u + deviation * noise


class add_noise(GradientTransformation):
    """Adds Gaussian noise whose variance falls with the steps.

        u <- u + sqrt(eta / t^gamma) n,  n ~ N(0, 1)

    The noise of a leaf depends on the key, the step and the leaf's path, so that adding a
    leaf or sharding leaves the others' noise as it was. A complex leaf's noise has half the
    variance in each part.

    Source: Neelakantan et al., "Adding gradient noise improves learning for very deep
    networks", 2015, arXiv:1511.06807.

    Args:
      eta: variance at the first step, >= 0.
      gamma: how fast it falls, >= 0.
      key: a random key, new or old style, or a whole number >= 0 to make one of.

    Raises:
      TypeError, ValueError: `eta` or `gamma` is not a number, or negative; `key` is neither a
        key nor a whole number >= 0.

    >>> tx = gradtx.add_noise(0.01, 0.55, key=0)
    """

    eta: Hyper
    gamma: Hyper
    key: Any = static(default=0)

    def validate(self) -> None:
        check_nonnegative("eta", self.eta)
        check_nonnegative("gamma", self.gamma)
        dtype, shape = getattr(self.key, "dtype", None), np.shape(self.key)
        if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ():
            return
        if dtype == np.uint32 and shape in _OLD_KEYS:
            return
        whole = isinstance(self.key, int | np.integer) and not isinstance(self.key, bool)
        if not whole or self.key < 0:
            raise TypeError(f"key must be one random key or a whole number >= 0, got {self.key!r}")

    def init(self, params: Params) -> AddNoiseState:
        if np.shape(self.key) in _OLD_KEYS:
            impl = _OLD_KEYS[np.shape(self.key)]
            return AddNoiseState(
                zero_count(), jax.random.wrap_key_data(jnp.array(self.key), impl=impl)
            )
        if isinstance(self.key, int | np.integer):
            return AddNoiseState(zero_count(), jax.random.key(self.key))
        return AddNoiseState(zero_count(), jnp.array(self.key))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        count = safe_increment(state.count)
        # Hashed with the path from here on: keys of leaves would be compiled leaf by leaf.
        seeds = jax.random.bits(jax.random.fold_in(state.rng_key, count), (2, 2, 2), jnp.uint32)

        def draw(path: Any, leaf: Any) -> Any:
            if not is_optimised(leaf):
                return leaf
            name = jnp.uint32(zlib.crc32(jax.tree_util.keystr(path).encode()))
            return hashed_normal(jnp.shape(leaf), jnp.result_type(leaf), pcg_hash(seeds + name))

        noise = jax.tree_util.tree_map_with_path(draw, updates)
        deviation = jnp.sqrt(self.eta / as_float(count) ** self.gamma)
        updates = map_leaves(noise_rule, updates, reads=(noise,), deviation=deviation)
        return updates, AddNoiseState(count, state.rng_key)
