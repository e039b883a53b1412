"""Real data that needs no download, and a sampler of minibatches that is a pure function."""

from __future__ import annotations

import pydoc_data.topics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sklearn.datasets

_SPLIT_SEED = 0


class Split(NamedTuple):
    """Examples apart: to learn from, to choose by, and to report on.

    Each part is a pytree of arrays whose first axis counts examples.
    """

    train: Any
    validation: Any
    test: Any


class Images(NamedTuple):
    """`pixels` in [0, 1], shape (n, 64), and the `digits` that they show, shape (n,)."""

    pixels: jax.Array
    digits: jax.Array


class Text(NamedTuple):
    """Characters as numbers, cut into windows, and the `alphabet` that decodes them."""

    windows: Split
    alphabet: str


class Batch(NamedTuple):
    """Which examples make up a batch.

    The last batch of an epoch may be short: it is filled up to the common size with examples
    of weight 0, so that every batch has one shape and one compiled program.
    """

    indices: jax.Array
    weights: jax.Array


def digits() -> Split:
    """Scikit-learn's 1,797 handwritten digits, as 1,280, 256 and 261 `Images`, always the same.

    >>> [len(part.digits) for part in digits()]
    [1280, 256, 261]
    """
    pixels, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    pixels, labels = (pixels[order] / 16.0).astype(np.float32), labels[order].astype(np.int32)
    cuts = [1280, 1280 + 256]
    parts = zip(np.split(pixels, cuts), np.split(labels, cuts), strict=True)
    return Split(*(Images(jnp.asarray(x), jnp.asarray(y)) for x, y in parts))


def text(length: int) -> Text:
    """The documentation that Python carries in `pydoc_data.topics`, in windows of `length`.

    The first eight tenths are to train on, the next for validation, the last for testing: in
    the order of the text, so that no part has seen the sentences of another.

    >>> windows, alphabet = text(length=33)
    >>> "".join(alphabet[i] for i in windows.train[0]).split()[0]
    'The'
    """
    topics = pydoc_data.topics.topics
    characters = np.array(list("\n".join(topics[name] for name in sorted(topics))))
    alphabet, codes = np.unique(characters, return_inverse=True)
    count = len(codes) // length
    windows = codes[: count * length].reshape(count, length).astype(np.int32)
    parts = np.split(windows, [count * 8 // 10, count * 9 // 10])
    return Text(Split(*map(jnp.asarray, parts)), "".join(alphabet))


def batches_per_epoch(size: int, batch_size: int) -> int:
    """How many batches it takes to see `size` examples once; the last may be short."""
    return -(-size // batch_size)


def minibatch(
    key: jax.Array, epoch: jax.Array | int, index: jax.Array | int, size: int, batch_size: int
) -> Batch:
    """Batch number `index` of `epoch`: a pure function, so a run resumes from `(epoch, index)`.

    Each epoch has its own permutation of all examples, from `fold_in(key, epoch)`, and its
    batches are consecutive pieces of it: drawn without replacement.

    Args:
      key: says which sequence of permutations.
      epoch: number of the epoch, from 0.
      index: number of the batch, from 0 to `batches_per_epoch(size, batch_size) - 1`.
      size: number of examples.
      batch_size: examples in a batch, from 1 to `size`.

    >>> batch = minibatch(jax.random.key(0), epoch=0, index=1, size=5, batch_size=3)
    >>> print(batch.weights)
    [1. 1. 0.]
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size)
    position = index * batch_size + jnp.arange(batch_size)
    return Batch(order[position % size], (position < size).astype(np.float32))


def full_batch(size: int) -> Batch:
    """All examples with weight 1: full-batch gradient descent.

    >>> print(full_batch(3).indices)
    [0 1 2]
    """
    return Batch(jnp.arange(size), jnp.ones(size))


def take(examples: Any, batch: Batch) -> Any:
    """The examples of a batch: a pytree like `examples`, its first axis now the batch's."""
    return jax.tree.map(lambda array: jnp.asarray(array)[batch.indices], examples)


def weighted_mean(values: jax.Array, batch: Batch) -> jax.Array:
    """The mean of one value per example over those of weight 1: the loss of a batch.

    >>> batch = Batch(indices=jnp.arange(3), weights=jnp.asarray([1.0, 1.0, 0.0]))
    >>> print(weighted_mean(jnp.asarray([1.0, 3.0, 9.0]), batch))
    2.0
    """
    return jnp.sum(values * batch.weights) / jnp.sum(batch.weights)
