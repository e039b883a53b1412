"""Nesterov's accelerated gradient (Nesterov, 1983; Sutskever et al., 2013, equations 3 and 4).

    v_t     = rho v_{t-1} - lr grad f(x_t + rho v_{t-1})      look-ahead form
    x_{t+1} = x_t + v_t

and, in terms of x~_t = x_t + rho v_{t-1}, where the gradient is taken,

    v_t      = rho v_{t-1} - lr grad f(x~_t)                  change of variables
    x~_{t+1} = x~_t - rho v_{t-1} + (1 + rho) v_t
"""

from __future__ import annotations

import jax

from gradtx.core.hyper import Hyper, ScalarOrSchedule, check_number
from gradtx.core.leaf import map_leaves, narrow
from gradtx.core.slot import Params, State
from gradtx.core.transformation import GradientTransformation
from gradtx.core.value import static
from gradtx.transforms.decay import WithDecay, descend
from gradtx.transforms.trace import trace


def lookahead_rule(x: jax.Array, v: jax.Array, *, decay: Hyper) -> jax.Array:
    return x + decay * v


class lookahead_trace(trace):
    """`trace` whose next gradient is to be taken at x + decay v.

        v <- decay v + u;  the update becomes v

    `lookahead_point(state, params)` gives x + decay v. To be placed after
    `scale_by_learning_rate`, so that v is a displacement.

    Source: Nesterov, "A method of solving a convex programming problem with convergence rate
    O(1/k^2)", 1983, as written by Sutskever et al., 2013, equations 3 and 4.

    Args, Raises: as for `trace`, without `nesterov`.

    >>> tx = gradtx.lookahead_trace(decay=0.9)
    """

    def validate(self) -> None:
        super().validate()
        if self.nesterov:
            raise ValueError("lookahead_trace looks ahead already: nesterov must be False")

    def lookahead_point(self, state: State, params: Params) -> Params:
        point = map_leaves(lookahead_rule, params, reads=(state.trace,), decay=self.decay)
        return narrow(point, like=params)


class nesterov_momentum(WithDecay):
    """Nesterov's accelerated gradient with the learning rate inside the velocity.

        v <- rho v - lr g;  x <- x + v,  with g taken at x + rho v          (`lookahead=True`)
        v_old, v <- v, rho v - lr g;  x <- x - rho v_old + (1 + rho) v      (`lookahead=False`)

    The second is the first seen from x~ = x + rho v, so that gradients are taken at the
    parameters themselves. For the first, take them at `tx.lookahead_point(state, params)`.

    Source: Nesterov, "A method of solving a convex programming problem with convergence rate
    O(1/k^2)", 1983; Sutskever et al., 2013, equations 3 and 4; the change of variables:
    Bengio, Boulanger-Lewandowski, Pascanu, "Advances in optimizing recurrent networks", 2012,
    arXiv:1212.0901, section 3.5.

    Args:
      learning_rate: number >= 0, 0-d array, or schedule.
      momentum: rho, from 0 to 1. Number or 0-d array.
      lookahead: which of the two forms.
      weight_decay, mask, coupling, peak_learning_rate: as for `adamw`; no decay by default.

    Raises:
      TypeError, ValueError: an argument is not a number, or out of its range.

    >>> tx = gradtx.nesterov_momentum(0.1, momentum=0.9)
    >>> tx = gradtx.nesterov_momentum(0.1, momentum=0.9, lookahead=True)
    """

    learning_rate: ScalarOrSchedule
    momentum: Hyper = 0.9
    lookahead: bool = static(default=False, kw_only=True)

    def validate(self) -> None:
        check_number("momentum", self.momentum, 0.0, 1.0)
        super().validate()

    def compose(self) -> GradientTransformation:
        stage = lookahead_trace(self.momentum) if self.lookahead else trace(self.momentum, True)
        return descend(self, momentum=stage)
