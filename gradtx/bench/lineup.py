"""What is compared: gradtx's transformations, and their counterparts in Optax and PyTorch.

Optimizers are found, not listed: every public one that Optax has under the same name. Only what
needs special arguments, and the names of PyTorch's classes, stand in tables here.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import gradtx

_RATE = 1e-3
_MAX_NORM = 1.0
_MAX_ERRORS = 5
WINDOW = 4
"""Micro-batches for one step of an accumulated optimizer."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A function's name and keyword arguments: what gradtx, or Optax, or PyTorch is to build."""

    function: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, library: Any) -> Any:
        """What the library's function of this name returns.

        >>> Recipe("sgd", {"learning_rate": 0.1}).build(gradtx)
        sgd(learning_rate=0.1)
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a deprecated optimizer is compared all the same
            return getattr(library, self.function)(**self.arguments)


@dataclasses.dataclass(frozen=True)
class TorchRecipe:
    """PyTorch's counterpart.

    Attributes:
      optimizer: class of `torch.optim` and its arguments.
      max_norm: what the gradients' global norm is clipped to before the step; `None` for no
        clipping.
    """

    optimizer: Recipe
    max_norm: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of a table: what gradtx does, and who does the same.

    Attributes:
      name: what the line is called.
      own: gradtx's transformation.
      theirs: Optax's; `None` where Optax is not installed.
      torch: PyTorch's; `None` where it has none.
      inner: what `own` is wrapped around, where the wrapper's own cost is of interest.
      window: steps that belong together; the mean of the window is measured.
      gradient_reads: how often the gradients have to be read: twice where something about all
        of them is to be known before the step.
    """

    name: str
    own: gradtx.GradientTransformation
    theirs: Any
    torch: TorchRecipe | None = None
    inner: gradtx.GradientTransformation | None = None
    window: int = 1
    gradient_reads: int = 1


_SPECIAL = {
    "momentum": Recipe("sgd", {"learning_rate": _RATE, "momentum": 0.9}),
    "nesterov": Recipe("sgd", {"learning_rate": _RATE, "momentum": 0.9, "nesterov": True}),
    "noisy_sgd": Recipe("noisy_sgd", {"learning_rate": _RATE, "key": 0}),
}

_TORCH = {
    "sgd": Recipe("SGD"),
    "momentum": Recipe("SGD", {"momentum": 0.9}),
    "nesterov": Recipe("SGD", {"momentum": 0.9, "nesterov": True}),
    "adagrad": Recipe("Adagrad"),
    "rmsprop": Recipe("RMSprop"),
    "adam": Recipe("Adam"),
    "adamw": Recipe("AdamW"),
    "nadam": Recipe("NAdam"),
    "adamax": Recipe("Adamax"),
    "amsgrad": Recipe("Adam", {"amsgrad": True}),
    "adadelta": Recipe("Adadelta"),
    "adafactor": Recipe("Adafactor"),
    "radam": Recipe("RAdam"),
    "rprop": Recipe("Rprop"),
}


def recipes(optax: ModuleType | None) -> dict[str, Recipe]:
    """Every optimizer that gradtx and Optax both have; without Optax, all of gradtx's.

    >>> list(recipes(None))[:4]
    ['sgd', 'momentum', 'nesterov', 'classical_momentum']
    """
    found: dict[str, Recipe] = {}
    for name in gradtx.__all__:
        if _is_optimizer(name) and (optax is None or hasattr(optax, name)):
            found[name] = _SPECIAL.get(name) or _usual(name)
        if name == "sgd":
            found |= {variant: _SPECIAL[variant] for variant in ("momentum", "nesterov")}
    return found


def plain(names: Iterable[str], optax: ModuleType | None) -> list[Case]:
    """The optimizers of these names, as they are."""
    known = recipes(optax)
    return [
        Case(
            name,
            known[name].build(gradtx),
            optax and known[name].build(optax),
            torch=TorchRecipe(_TORCH[name]) if name in _TORCH else None,
        )
        for name in names
    ]


def clipped(names: Iterable[str], optax: ModuleType | None) -> list[Case]:
    """The optimizers of these names behind `clip_by_global_norm`."""
    return [
        Case(
            f"clip + {case.name}",
            gradtx.chain(gradtx.clip_by_global_norm(_MAX_NORM), case.own),
            optax and optax.chain(optax.clip_by_global_norm(_MAX_NORM), case.theirs),
            torch=case.torch and dataclasses.replace(case.torch, max_norm=_MAX_NORM),
            gradient_reads=2,
        )
        for case in plain(names, optax)
    ]


def flattened(names: Iterable[str], optax: ModuleType | None) -> list[Case]:
    """The optimizers of these names on one vector, against Optax's on one, and leaf by leaf."""
    return [
        dataclasses.replace(
            case,
            name=f"flatten({case.name})",
            own=gradtx.flatten(case.own),
            theirs=optax and optax.flatten(case.theirs),
            inner=case.own,
        )
        for case in plain(names, optax)
    ]


def wrapped(names: Iterable[str], optax: ModuleType | None) -> list[Case]:
    """The optimizers of these names in gradtx's wrappers, against Optax's counterparts."""
    cases = []
    for case in plain(names, optax):
        inner, theirs = case.own, case.theirs
        guarded = optax and optax.apply_if_finite(theirs, _MAX_ERRORS)
        gathered = optax and optax.MultiSteps(theirs, WINDOW)
        for guard in (gradtx.skip_nonfinite(inner), gradtx.apply_if_finite(inner, _MAX_ERRORS)):
            name = f"{type(guard).__name__}({case.name})"
            cases.append(Case(name, guard, guarded, inner=inner, gradient_reads=2))
        for gather in (gradtx.accumulate(inner, WINDOW), gradtx.MultiSteps(inner, WINDOW)):
            name = f"{type(gather).__name__}({case.name}, {WINDOW})"
            cases.append(Case(name, gather, gathered, inner=inner, window=WINDOW))
    return cases


def _is_optimizer(name: str) -> bool:
    """Whether this is an optimizer whose `update` needs no more than `value` beside gradients."""
    thing = getattr(gradtx, name)
    if not getattr(thing, "__module__", "").startswith("gradtx.optimizers."):
        return False
    if not issubclass(thing, gradtx.GradientTransformation) or name.startswith("scale_by_"):
        return False
    required = {f.name for f in dataclasses.fields(thing) if f.default is dataclasses.MISSING}
    if not required <= set((_SPECIAL.get(name) or _usual(name)).arguments):
        return False
    return set(_usual(name).build(gradtx).required_extra_args) <= {"value"}


def _usual(name: str) -> Recipe:
    fields = {field.name for field in dataclasses.fields(getattr(gradtx, name))}
    return Recipe(name, {"learning_rate": _RATE} if "learning_rate" in fields else {})
