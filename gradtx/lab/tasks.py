"""What the race can be run on: a model, its data, and how well it does on each example."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from gradtx.lab import data
from gradtx.lab.models import CharacterTransformer, DigitNetwork
from gradtx.lab.problems import LANDSCAPES, Landscape

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)
"""Learning rates that every optimizer is tried with: the same for all, half a decade apart."""


class Scores(NamedTuple):
    """One loss for each example, and one accuracy in [0, 1] where the task has such a thing."""

    losses: jax.Array
    accuracies: jax.Array | None


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Something to minimise, ready to run.

    Attributes:
      name: what `--task` calls it.
      description: one sentence for the report.
      init: from a key to the initial parameters.
      score: from parameters and examples to their scores; the loss is the mean of the losses.
      split: the examples, or those of one dummy example where the task has no data.
      has_data: whether batches are drawn at all.
      steps: how many steps are usual.
      batch_size: how many examples in a batch are usual.
      evaluate_every: steps between two looks at the validation examples.
      rates: the grid of learning rates.
    """

    name: str
    description: str
    init: Callable[[jax.Array], Any]
    score: Callable[[Any, Any], Scores]
    split: data.Split
    has_data: bool = True
    steps: int = 500
    batch_size: int = 64
    evaluate_every: int = 10
    rates: tuple[float, ...] = RATES

    @property
    def size(self) -> int:
        """Number of training examples."""
        return int(jax.tree.leaves(self.split.train)[0].shape[0])


def _negative_log_likelihood(logits: jax.Array, labels: jax.Array) -> jax.Array:
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


def _network_task(
    name: str,
    description: str,
    build: Callable[[nnx.Rngs], Any],
    pairs: Callable[[Any], tuple[jax.Array, jax.Array]],
    split: data.Split,
    **settings: Any,
) -> Task:
    """A task of classification; `pairs` splits examples into inputs and labels."""
    structure = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    @jax.jit  # a third of the time of building it eagerly
    def init(key: jax.Array) -> Any:
        return nnx.state(build(nnx.Rngs(key)), nnx.Param)

    def score(params: Any, examples: Any) -> Scores:
        inputs, labels = pairs(examples)
        logits = nnx.merge(structure, params)(inputs)
        losses = _negative_log_likelihood(logits, labels)
        hits = (jnp.argmax(logits, axis=-1) == labels).astype(losses.dtype)
        per_example = tuple(range(1, losses.ndim))
        return Scores(jnp.mean(losses, axis=per_example), jnp.mean(hits, axis=per_example))

    return Task(name, description, init, score, split, **settings)


def digits_task() -> Task:
    """Handwritten digits and a network of one hidden layer."""
    return _network_task(
        "digits",
        "1,797 handwritten digits of 8 x 8 pixels (scikit-learn), a network with 64 hidden units",
        lambda rngs: DigitNetwork(hidden=64, rngs=rngs),
        lambda images: (images.pixels, images.digits),
        data.digits(),
    )


def text_task() -> Task:
    """The next character of Python's documentation, and a small transformer."""
    length = 32
    windows, alphabet = data.text(length + 1)
    # Validation and test are a fixed sample: scoring all 1,400 windows of each would take
    # longer than the training.
    sample = windows._replace(validation=windows.validation[::11], test=windows.test[::11])
    return _network_task(
        "text",
        "the English of Python's own documentation (pydoc_data.topics), character by character, "
        "a transformer of one block",
        lambda rngs: CharacterTransformer(len(alphabet), length, width=32, heads=2, rngs=rngs),
        lambda codes: (codes[:, :-1], codes[:, 1:]),
        sample,
        steps=150,
        batch_size=16,
        evaluate_every=15,
        rates=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    )


def landscape_task(landscape: Landscape) -> Task:
    """A function of two numbers: there are no examples, and every step sees all of it."""
    nothing = jnp.zeros((1, 0))
    return Task(
        landscape.name,
        f"the lecture's landscape: {(landscape.function.__doc__ or '').splitlines()[0]}",
        lambda key: jnp.asarray(landscape.start),
        lambda point, _: Scores(landscape.function(point)[None], None),
        data.Split(nothing, nothing, nothing),
        has_data=False,
        steps=300,
        batch_size=1,
        evaluate_every=5,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits_task,
    "text": text_task,
    **{
        name: functools.partial(landscape_task, landscape) for name, landscape in LANDSCAPES.items()
    },
}
"""Name of each task, and how to load it."""
