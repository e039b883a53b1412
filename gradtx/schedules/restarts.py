"""Warm restarts (Loshchilov & Hutter, 2016, arXiv:1608.03983)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike

from gradtx.core.hyper import Schedule
from gradtx.schedules.join import join_schedules
from gradtx.schedules.warmup import warmup_cosine_decay_schedule


class sgdr_schedule(Schedule):
    """One `warmup_cosine_decay_schedule` after another; the last one's end stays.

    Source: Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", 2016,
    arXiv:1608.03983.

    Args:
      cosine_kwargs: for each cycle a dict with the arguments of
        `warmup_cosine_decay_schedule`; `decay_steps` is the cycle's length.

    Raises:
      TypeError, ValueError: there is no cycle, or the arguments of one are refused; the
        message names the cycle.

    >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": 10}
    >>> schedule = gradtx.sgdr_schedule([cycle, cycle | {"peak_value": 0.5}])
    >>> print(schedule(0), schedule(10), schedule(20), schedule(21))
    1.0 0.5 0.0 0.0
    """

    cosine_kwargs: Iterable[Mapping[str, Any]]

    def validate(self) -> None:
        if isinstance(self.cosine_kwargs, str | Mapping) or not isinstance(
            self.cosine_kwargs, Iterable
        ):
            raise TypeError(f"cosine_kwargs must be a list of dicts, got {self.cosine_kwargs!r}")
        cycles = []
        for i, cycle in enumerate(self.cosine_kwargs):
            if not isinstance(cycle, Mapping):
                raise TypeError(f"cosine_kwargs[{i}] must be a dict, got {cycle!r}")
            try:
                checked = warmup_cosine_decay_schedule(**cycle)
            except (TypeError, ValueError) as error:
                raise type(error)(f"cosine_kwargs[{i}]: {error}") from error
            cycles.append({name: getattr(checked, name) for name in cycle})
        if not cycles:
            raise ValueError("cosine_kwargs must hold at least one dict, got none")
        object.__setattr__(self, "cosine_kwargs", tuple(cycles))

    def __call__(self, count: ArrayLike) -> jax.Array:
        cycles = [warmup_cosine_decay_schedule(**cycle) for cycle in self.cosine_kwargs]
        ends = itertools.accumulate(cycle.decay_steps for cycle in cycles)
        return join_schedules(cycles, [*ends][:-1])(count)
