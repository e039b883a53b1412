"""The whole Optax namespace, for scripts that say `import optax`.

    from gradtx.compat import optax

gradtx's own stands wherever gradtx has the name; what lies outside gradtx's purpose (losses,
projections, assignment, ...) is the installed Optax's. Submodules (`optax.tree`,
`optax.schedules`, `optax.contrib`, ...) are served likewise.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import gradtx
import gradtx.tree

_SUBMODULES = (
    "assignment",
    "contrib",
    "losses",
    "microbatching",
    "monte_carlo",
    "perturbations",
    "projections",
    "schedules",
    "second_order",
    "transforms",
    "tree",
    "tree_utils",
)


class _Submodule(ModuleType):
    """A submodule of Optax, with gradtx's own for the names that gradtx has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        short = self.__name__.rpartition(".")[2]
        if short in ("tree", "tree_utils"):
            own = name.removeprefix("tree_") if short == "tree_utils" else name
            value = getattr(gradtx.tree, own, None)
            if getattr(value, "__module__", "").startswith("gradtx."):
                return value
        elif name in gradtx.__all__:
            return getattr(gradtx, name)
        return _installed(name, f"optax.{short}")


def __getattr__(name: str) -> Any:
    if name in gradtx.__all__:
        return getattr(gradtx, name)
    if name in _SUBMODULES:
        return _Submodule(f"{__name__}.{name}")
    return _installed(name, "optax")


def __dir__() -> list[str]:
    try:
        installed = dir(importlib.import_module("optax"))
    except ImportError:
        installed = []
    return sorted({*gradtx.__all__, *_SUBMODULES, *installed})


def _installed(name: str, module: str) -> Any:
    if name.startswith("__") and name != "__version__":
        raise AttributeError(name)
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise AttributeError(
            f"gradtx has no {name!r}; {module}.{name} may be Optax's, which is not installed: "
            "pip install optax"
        ) from error
    except AttributeError:
        raise AttributeError(f"neither gradtx nor {module} has {name!r}") from None
