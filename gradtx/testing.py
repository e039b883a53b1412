"""The laws that every transformation keeps, as functions that anybody can call.

    gradtx.testing.check_transformation(my_optimizer(0.1), params)

runs all of `LAWS` and raises an `AssertionError` that names the law which does not hold.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.core.leaf import is_optimised
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import is_plain_callable
from gradtx.laws import LAWS

__all__ = ["LAWS", "check_transformation", "gradients_like"]


def check_transformation(
    tx: GradientTransformation, params: Any, *, laws: Iterable[str] | None = None, **extra_args: Any
) -> None:
    """Checks that a transformation keeps the laws, as scikit-learn's `check_estimator` does.

    Args:
      tx: a transformation made of concrete hyperparameters.
      params: tree of arrays to try it on; small ones will do. The law on sharding needs
        several devices and leaves whose first axis they divide; elsewhere it holds trivially.
      laws: names out of `LAWS`; by default all.
      **extra_args: passed to every `update` and `step`, such as `value=1.0` for `polyak_sgd`.
        Where `tx` requires `grad` and it is not among them, each update gets its own gradients.
        Functions, such as `value_fn`, are passed through `jit` as `jax.tree_util.Partial`;
        they are called with other trees than `params` too.

    Raises:
      AssertionError: a law does not hold; the message begins with its name.
      KeyError: a name in `laws` is not one of `LAWS`.

    >>> gradtx.testing.check_transformation(gradtx.sgd(0.1), {"w": jnp.ones((8, 2))})
    """
    grads, shown = gradients_like(params), repr(tx)
    extra_args = {
        name: jax.tree_util.Partial(arg)  # type: ignore[no-untyped-call]
        if is_plain_callable(arg)
        else arg
        for name, arg in extra_args.items()
    }
    if "grad" in tx.required_extra_args and "grad" not in extra_args:
        tx = _given_its_gradients(tx)
    for name in LAWS if laws is None else laws:
        law = LAWS[name]
        try:
            law(tx, params, grads, **extra_args)
        except Exception as error:
            raise AssertionError(f"{name}: {shown}: {error}") from error


class _given_its_gradients(GradientTransformation):
    """Passes what it is given to `inner` as the extra argument `grad` too.

    The laws make trees of several structures, which no one `grad` fits.
    """

    inner: GradientTransformation

    @functools.cached_property
    def _required(self) -> Mapping[str, str]:
        required = self.inner._required
        return {name: stage for name, stage in required.items() if name != "grad"}

    def init(self, params: Any) -> Any:
        return self.inner.init(params)

    def transform(
        self, updates: Any, state: Any, params: Any, **extra_args: Any
    ) -> tuple[Any, Any]:
        return self.inner.transform(updates, state, params, grad=updates, **extra_args)


def gradients_like(params: Any, seed: int = 0, dtype: Any = None) -> Any:
    """Normally distributed gradients for `params`; leaves that are not optimised stay.

    Args:
      params: tree of arrays.
      seed: of the random numbers.
      dtype: dtype of the gradients of real leaves; by default each leaf's own.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> Any:
        if not is_optimised(leaf):
            return leaf
        leaf = jnp.asarray(leaf)
        if jnp.iscomplexobj(leaf):
            values = rng.normal(size=leaf.shape) + 1j * rng.normal(size=leaf.shape)
            return jnp.asarray(values, leaf.dtype)
        return jnp.asarray(rng.normal(size=leaf.shape), dtype or leaf.dtype)

    return jax.tree.map(draw, params)
