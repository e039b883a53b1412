"""Rounding to bfloat16 and float16: to nearest, and stochastically (Forsythe, 1950).

    round(x) = x rounded down, or up with the probability of how far x is on the way

so that the mean over the random bits is x. Rounding is done on the bits of the float32, since
XLA may leave out a cast to a narrower dtype and back.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.hashing import hashed_bits, pcg_hash
from gradtx.core.hyper import check_steps
from gradtx.core.leaf import call_each, is_optimised, match, path_of
from gradtx.core.numerics import safe_increment, zero_count
from gradtx.core.slot import Count, Inner, Params, State, Updates
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.core.value import integer


def is_low(leaf: Any) -> bool:
    """Whether a parameter is optimised and narrower than float32."""
    return is_optimised(leaf) and jnp.result_type(leaf).itemsize < 4


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def rounded(x: jax.Array, dtype: Any, bits: jax.Array | None = None) -> jax.Array:
    """A float32 array with each value rounded to one that `dtype` holds.

    To nearest, halves to even, as a cast does; with `bits` down or up at random, which makes no
    value infinite that `dtype` has room for. To differentiation it is the identity, as a cast is.

    Args:
      x: float32.
      dtype: float16, bfloat16, or a narrower float.
      bits: random, uint32, of the shape of `x`.
    """
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    dropped = 23 - info.nmant
    pattern = jax.lax.bitcast_convert_type(x, jnp.uint32)
    if bits is None:
        # A half, less one where the last bit that stays is even.
        added = ((pattern >> np.uint32(dropped)) & np.uint32(1)) + np.uint32(2 ** (dropped - 1) - 1)
    else:
        added = bits >> np.uint32(32 - dropped)
    kept = (pattern + added) & np.uint32(2**32 - 2**dropped)
    new = jax.lax.bitcast_convert_type(kept, jnp.float32)
    if info.minexp > jnp.finfo(jnp.float32).minexp:  # type: ignore[no-untyped-call]
        # Below the normal numbers of `dtype` the spacing no longer falls.
        spacing = np.float32(info.smallest_subnormal)
        scaled = x / spacing
        if bits is None:
            steps = jnp.round(scaled)
        else:
            share = (bits >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)
            low = jnp.floor(scaled)
            steps = jnp.where(share < scaled - low, low + 1, low)
        new = jnp.where(jnp.abs(x) < np.float32(info.tiny), steps * spacing, new)
    fits = jnp.isfinite(x) if bits is None else jnp.abs(x) <= np.float32(info.max)
    return jnp.where(fits, new, x)


@rounded.defjvp
def _rounded_jvp(dtype: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return rounded(primals[0], dtype, primals[1]), tangents[0]


def update_to(new: jax.Array, p: jax.Array) -> jax.Array:
    """The update that takes a narrow parameter to `new`, as far as one in its dtype does.

    Args:
      new: float32, of values that the dtype of `p` holds.
      p: the parameter.
    """
    return kept_still(rounded(new - p.astype(jnp.float32), p.dtype))


def kept_still(update: jax.Array) -> jax.Array:
    """The update, with -0.0 for 0.0, so that a parameter of -0.0 keeps its sign."""
    return jnp.where(update == 0, np.float32(-0.0), update)


def map_low(
    function: Any,
    shared: Any,
    updates: Updates,
    params: Params,
    *slots: Any,
    reads: tuple[Any, ...] = (),
) -> list[Any]:
    """`function(shared, update, parameter, *slots, *reads)` for each narrow parameter that moves.

    Args:
      function: jitted; returns the new update, and the new value of every slot.
      shared: a tree of arrays for all leaves.
      updates: tree of updates.
      params: tree like it; those in float32 or wider keep their updates.
      *slots: trees like it that hold something for narrow parameters.
      reads: further trees like it.

    Returns:
      The trees of updates and of slots.

    Raises:
      ValueError: structures or shapes differ, or a slot holds nothing for a narrow parameter;
        the message names the leaf's path.
    """
    treedef: Any
    leaves, treedef = jax.tree.flatten(updates, is_leaf=_is_none)
    others = [match(updates, x, "updates", "the state or params") for x in (params, *slots, *reads)]
    rows = list(zip(leaves, *others, strict=True))
    moving = [i for i, (u, p, *_) in enumerate(rows) if is_optimised(u) and is_low(p)]
    for i in moving:
        if any(x is None for x in rows[i]):
            raise ValueError(
                f"params{path_of(updates, i)} has dtype {rows[i][1].dtype}, but the state has "
                "nothing there; was the state made by init with these parameters?"
            )
        for held in rows[i][2 : 2 + len(slots)]:  # `match` compares no integers
            if np.shape(held) != np.shape(rows[i][1]):
                raise ValueError(
                    f"params{path_of(updates, i)} has shape {np.shape(rows[i][1])}, but in the "
                    f"state it has shape {np.shape(held)}"
                )
    results = call_each(function, (), shared, [rows[i] for i in moving])
    kept = [(u, *others[: len(slots)]) for u, _, *others in rows]
    for i, result in zip(moving, results, strict=True):
        kept[i] = result
    treedefs = [treedef, *(jax.tree.structure(slot, is_leaf=_is_none) for slot in slots)]
    return [jax.tree.unflatten(d, [row[j] for row in kept]) for j, d in enumerate(treedefs)]


def _is_none(x: Any) -> bool:
    return x is None


class StochasticRoundingState(NamedTuple):
    """The number of steps, and the state of the inner transformation."""

    count: Count  # type: ignore[assignment]
    inner_state: Inner


class stochastic_rounding(GradientTransformation):
    """Rounds bfloat16 and float16 parameters up or down at random, so that small steps add up.

        x <- down(x + u) or up(x + u), with probabilities that make the mean x + u

    Rounding to nearest loses every update below half the spacing of the parameter's values: 1.0
    in bfloat16 stays where it is for updates below 0.0019. Parameters in float32 or wider are
    left to the inner transformation alone. There is no state but a count.

    The random bits are a hash of seed, step, the leaf's path and the entry's place, so that
    neither sharding nor another leaf changes them.

    Put it outermost: nothing may change the updates after. They are in the parameter's dtype,
    and `apply_updates` rounds to nearest: it arrives at the rounded value exactly where that is
    between half and twice the parameter, or the parameter is 0. After a larger update it may end
    beside that value, by up to 2^-7 of the update (bfloat16; 2^-10 for float16).

    Source: Gupta et al., "Deep learning with limited numerical precision", 2015,
    arXiv:1502.02551; for bfloat16 weights Zamirai et al., "Revisiting BFloat16 training", 2020,
    arXiv:2010.06192.

    Args:
      inner: the transformation whose updates are added.
      seed: of the random bits, a whole number from 0 to 2^32 - 1.

    Raises:
      TypeError, ValueError: `inner` is not a transformation, or `seed` not such a number. In
        `update`: `params` is missing.

    >>> tx = gradtx.stochastic_rounding(gradtx.sgd(0.1))
    >>> tx = gradtx.stochastic_rounding(gradtx.adamw(1e-3), seed=1)
    >>> tx = gradtx.stochastic_rounding(gradtx.sgd(1e-3))
    >>> params, grads = jnp.ones(10_000, jnp.bfloat16), jnp.ones(10_000, jnp.bfloat16)
    >>> params, state = tx.step(grads, tx.init(params), params)
    >>> print(f"{jnp.mean(params.astype(jnp.float32)):.3f}")
    0.999
    """

    requires: ClassVar[tuple[str, ...]] = ("params",)

    inner: GradientTransformation
    seed: int | jax.Array = integer(default=0)

    def validate(self) -> None:
        object.__setattr__(self, "inner", as_transformation(self.inner))
        check_steps("seed", self.seed)
        if isinstance(self.seed, int) and self.seed >= 2**32:
            raise ValueError(f"seed must be below 2^32, got {self.seed}")

    def init(self, params: Params) -> StochasticRoundingState:
        return StochasticRoundingState(zero_count(), self.inner.init(params))

    def transform(
        self, updates: Updates, state: State, params: Params | None, **extra_args: Any
    ) -> tuple[Updates, State]:
        count = safe_increment(state.count)
        updates, inner_state = self.inner.transform(
            updates, state.inner_state, params, **extra_args
        )
        seed = pcg_hash(pcg_hash(jnp.asarray(self.seed, jnp.uint32)) ^ count.astype(jnp.uint32))
        hashes = jax.tree_util.tree_map_with_path(_hash_of_path, updates)
        (updates,) = map_low(_round_stochastically, seed, updates, params, reads=(hashes,))
        return updates, StochasticRoundingState(count, inner_state)

    def lookahead_point(self, state: State, params: Params) -> Params:
        return self.inner.lookahead_point(state.inner_state, params)


def _hash_of_path(path: Any, leaf: Any) -> Any:
    # An array with the leaf's dtype would be held against its shape.
    return np.uint32(zlib.crc32(jax.tree_util.keystr(path).encode()))


@jax.jit
def _round_stochastically(
    seed: jax.Array, u: jax.Array, p: jax.Array, path: jax.Array
) -> tuple[jax.Array]:
    bits = hashed_bits(p.shape, pcg_hash(seed ^ path))
    new = rounded(p.astype(jnp.float32) + u.astype(jnp.float32), p.dtype, bits)
    return (update_to(new, p),)
