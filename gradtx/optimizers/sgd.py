"""Gradient descent, and momentum (Polyak, 1964; Sutskever et al., 2013).

    x_{t+1} = x_t - lr g_t                                    gradient descent

    v_t     = rho v_{t-1} + g_t                               momentum, first form
    x_{t+1} = x_t - lr v_t                                    (`nesterov`: - lr (g_t + rho v_t))

With g the gradient of the mean loss over all examples this is full-batch descent; with that
of a sampled batch, stochastic gradient descent.
"""

from __future__ import annotations

from jax.typing import DTypeLike

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import dtype, static
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.stateless import identity
from gradtx.transforms.trace import trace


class sgd(WithDecay):
    """Stochastic gradient descent, with or without momentum.

        v <- rho v + g;  x <- x - lr v          (without momentum: x <- x - lr g)

    With `nesterov` the step is lr (g + rho v): Optax's and PyTorch's form, which is the
    look-ahead form of `nesterov_momentum` seen from the look-ahead point.

    Source: Robbins, Monro, "A stochastic approximation method", 1951; Polyak, 1964;
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in
    deep learning", 2013.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      momentum: rho, from 0 to 1; `None` for no momentum and no state.
      nesterov: whether to look ahead; without effect where `momentum` is `None`.
      accumulator_dtype: dtype of v; by default the parameter's, at least float32.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.sgd(0.1)
    >>> params = jnp.asarray([1.0])
    >>> tx.step(jnp.asarray([2.0]), tx.init(params), params)[0]
    Array([0.8], dtype=float32)
    >>> tx = gradtx.sgd(0.1, momentum=0.9)
    >>> tx = gradtx.sgd(0.1, momentum=0.9, nesterov=True)
    >>> tx = gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 100), momentum=0.9)
    """

    learning_rate: ScalarOrSchedule
    momentum: Hyper | None = None
    nesterov: bool = static(default=False)
    accumulator_dtype: DTypeLike | None = dtype(default=None)

    def validate(self) -> None:
        if self.momentum is not None:
            check_number("momentum", self.momentum, 0.0, 1.0)
        super().validate()

    def compose(self) -> GradientTransformation:
        if self.momentum is None:
            return descend(self, identity())
        return descend(self, trace(self.momentum, self.nesterov, self.accumulator_dtype))
