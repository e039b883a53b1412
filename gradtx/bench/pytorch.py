"""PyTorch's optimizers on the same numbers: fused, foreach, and as they come."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from gradtx.bench.lineup import TorchRecipe
from gradtx.bench.programs import Tree

_VARIANTS: dict[str, dict[str, bool]] = {
    "torch fused": {"fused": True},
    "torch foreach": {"foreach": True},
    "torch default": {},
}


def timed_steps(
    torch: ModuleType, recipe: TorchRecipe, params: Tree, grads: Tree, device: str
) -> dict[str, Callable[[], float]]:
    """For each variant that the optimizer has, a function that returns the seconds of a step.

    Clipping writes into the gradients: from the second step on their norm is within the bound,
    but PyTorch computes it and multiplies all the same.

    Args:
      torch: the module.
      recipe: the optimizer, and clipping before it.
      params: arrays to start from, which are left alone.
      grads: the gradients of every step.
      device: PyTorch's name of the device to run on.
    """
    torch.set_num_threads(os.cpu_count() or 1)
    accepted = inspect.signature(getattr(torch.optim, recipe.optimizer.function)).parameters
    return {
        label: _timed_step(torch, recipe, flags, params, grads, device)
        for label, flags in _VARIANTS.items()
        if set(flags) <= set(accepted)
    }


def _timed_step(
    torch: ModuleType,
    recipe: TorchRecipe,
    flags: dict[str, bool],
    params: Tree,
    grads: Tree,
    device: str,
) -> Callable[[], float]:
    def tensor(x: Any) -> Any:
        return torch.tensor(np.asarray(x), device=device)

    parameters = [torch.nn.Parameter(tensor(x)) for x in params.values()]
    for parameter, grad in zip(parameters, grads.values(), strict=True):
        parameter.grad = tensor(grad)
    make = getattr(torch.optim, recipe.optimizer.function)
    optimizer = make(parameters, **recipe.optimizer.arguments, **flags)
    foreach = True if flags else None  # clipping has no fused form

    def run() -> float:
        begin = time.perf_counter()
        if recipe.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_norm, foreach=foreach)
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return run
