"""What a step costs once it is compiled: for this machine, and for hardware that is not here."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.resources
import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import jax
from jax.experimental import topologies

from gradtx.core.leaf import is_optimised
from gradtx.core.slot import Params, State
from gradtx.core.transformation import GradientTransformation, as_transformation
from gradtx.inspect.hlo import work_of
from gradtx.inspect.size import bytes_of, check_holds_arrays


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """What XLA makes of one step for one target; `print` shows it as a table.

    Attributes:
      target: what it was compiled for.
      parameters: number of parameters that are optimised.
      state_bytes: bytes of the whole state.
      temporary_bytes: what the step allocates beside parameters, state and gradients.
      bytes_accessed: what its kernels read and write. On a CPU as XLA counts it; on others the
        operands and results of every kernel that lie in the device's main memory, since XLA
        tells nothing of CUDA without the hardware, and on TPU adds what stays on the chip.
      flops: floating-point operations as XLA counts them; `None` where it does not tell.
      kernels: what the step launches. A loop's body counts once, and of the branches of a
        conditional the longest. On a TPU, scalars and asynchronous copies are no kernels.
      compile_seconds: how long XLA took, without tracing.
    """

    target: str
    parameters: int
    state_bytes: int
    temporary_bytes: int
    bytes_accessed: int
    flops: int | None
    kernels: int
    compile_seconds: float

    def __str__(self) -> str:
        return _table([self])


@dataclasses.dataclass(frozen=True)
class CompileReports:
    """What `compile_report` found for several targets; `print` shows it as one table.

    Attributes:
      compiled: a report for each target that could be compiled for.
      missing: a line for each of the others, which says what to install.
    """

    compiled: tuple[CompileReport, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*([_table(self.compiled)] if self.compiled else []), *self.missing])


class _Target(NamedTuple):
    device: Callable[[], jax.Device]
    module: str | None = None
    install: str = ""
    only_arrays: bool = False


@overload
def compile_report(
    tx: Any, params: Params, /, target: str = "cpu", **extra_args: Any
) -> CompileReport: ...
@overload
def compile_report(
    tx: Any, params: Params, /, target: Sequence[str], **extra_args: Any
) -> CompileReports: ...
def compile_report(
    tx: Any, params: Params, /, target: str | Sequence[str] = "cpu", **extra_args: Any
) -> CompileReport | CompileReports:
    """Compiles one `step`, with parameters and state donated, and tells what it costs.

    Nothing is computed or allocated, and the target's hardware need not be there. The step is
    compiled for one device; shardings of `params` are left aside.

    Args:
      tx: a transformation, gradtx's or Optax's.
      params: tree of arrays, or of `jax.ShapeDtypeStruct`.
      target: `"cpu"`, `"tpu:v5e:2x2"`, `"cuda:h100"`, or several of these.
      **extra_args: what the transformation's `update` needs, such as `value`: examples of
        arrays and numbers, or `jax.ShapeDtypeStruct`; functions as they are.

    Returns:
      A report; for several targets, the reports and a line for each target without its wheel.

    Raises:
      ValueError: there is no such target.
      ModuleNotFoundError: the wheel of a single target is not installed; the message says
        which.
      TypeError: `tx` is not a transformation, or needs an extra argument that is not given;
        `params` is not empty and has no array.

    >>> params = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    >>> report = gradtx.compile_report(gradtx.adamw(1e-3), params)
    >>> report.parameters, report.state_bytes, report.temporary_bytes < 500
    (4096, 32772, True)
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    for name in targets:
        if name not in _TARGETS:
            raise ValueError(f"target must be one of {', '.join(_TARGETS)}; got {name!r}")
    tx = as_transformation(tx)
    check_holds_arrays(params)
    if isinstance(target, str):
        if line := _missing(target):
            raise ModuleNotFoundError(line)
        return _compiled_for(target, tx, params, extra_args)
    missing = {name: line for name in targets if (line := _missing(name))}
    found = tuple(
        _compiled_for(name, tx, params, extra_args) for name in targets if name not in missing
    )
    return CompileReports(found, tuple(missing.values()))


def _compiled_for(
    target: str, tx: GradientTransformation, params: Params, extra_args: dict[str, Any]
) -> CompileReport:
    arrays, fixed = _arrays(params), _others(params)
    extra_arrays, fixed_extra_args = _arrays(extra_args), _others(extra_args)
    grads = jax.tree.map(lambda x: x if is_optimised(x) else None, arrays)

    def init(arrays: Any) -> State:
        return tx.init(_merged(arrays, fixed))

    def step(arrays: Any, state: State, grads: Any, extra_arrays: Any) -> tuple[Any, State]:
        extra_args = _merged(extra_arrays, fixed_extra_args)
        new_params, state = tx.step(grads, state, _merged(arrays, fixed), **extra_args)
        return _only(_is_operand, new_params), state

    state = jax.eval_shape(init, arrays)
    sharding = jax.sharding.SingleDeviceSharding(_TARGETS[target].device())
    operands = jax.tree.map(
        lambda x: x.update(sharding=sharding), (arrays, state, grads, extra_arrays)
    )
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(*operands)
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    costs, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    assert memory is not None  # all backends here tell it
    work = work_of(compiled.as_text() or "", only_arrays=_TARGETS[target].only_arrays)
    return CompileReport(
        target=target,
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(grads)),
        state_bytes=bytes_of(state),
        temporary_bytes=memory.temp_size_in_bytes,
        bytes_accessed=int(costs["bytes accessed"]) if target == "cpu" else work.bytes_accessed,
        flops=int(costs["flops"]) if "flops" in costs else None,
        kernels=work.kernels,
        compile_seconds=seconds,
    )


def _is_operand(leaf: Any) -> bool:
    # All else that stands in trees, such as functions, is no operand of a program.
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)


def _only(predicate: Callable[[Any], bool], tree: Any) -> Any:
    return jax.tree.map(lambda x: x if predicate(x) else None, tree)


def _arrays(tree: Any) -> Any:
    return jax.eval_shape(lambda x: x, _only(_is_operand, tree))


def _others(tree: Any) -> Any:
    return _only(lambda x: not _is_operand(x), tree)


def _merged(arrays: Any, others: Any) -> Any:
    return jax.tree.map(
        lambda x, other: other if x is None else x, arrays, others, is_leaf=lambda x: x is None
    )


def _cpu() -> jax.Device:
    return jax.devices("cpu")[0]


def _v5e() -> jax.Device:
    return _first(topologies.get_topology_desc("v5e:2x2", platform="tpu"))


def _h100() -> jax.Device:
    folder = importlib.resources.files("gradtx.inspect")
    config = folder.joinpath("h100_target_config.txtpb").read_text()
    describe = functools.partial(
        topologies.get_topology_desc, platform="cuda", topology="1x1x1", target_config=config
    )
    with _without_driver():
        try:
            return _first(describe())
        except NotImplementedError:
            # The plugin had asked for a driver when JAX first looked for plugins, and left.
            importlib.import_module("jax_plugins.xla_cuda13").initialize()
            return _first(describe())


def _first(topology: topologies.TopologyDescription) -> jax.Device:
    device: jax.Device = topology.devices[0]
    return device


@contextlib.contextmanager
def _without_driver() -> Iterator[None]:
    """Lets JAX's CUDA plugin start where there is no driver, which it does not need here."""
    name = "JAX_SKIP_CUDA_CONSTRAINTS_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


_TARGETS = {
    "cpu": _Target(_cpu),
    "tpu:v5e:2x2": _Target(_v5e, "libtpu", "pip install libtpu", only_arrays=True),
    "cuda:h100": _Target(_h100, "jax_cuda13_plugin", 'pip install "jax[cuda13]"'),
}


def _missing(target: str) -> str | None:
    """What to install for this target, if something is missing."""
    module, install = _TARGETS[target].module, _TARGETS[target].install
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"{target}: {module} is missing; install it with: {install}"


def _table(reports: Iterable[CompileReport]) -> str:
    head = ("target", "state", "temporaries", "accessed", "FLOPs", "kernels", "compile")
    rows = [head, ("", *["bytes/param"] * 3, "/param", "", "s")]
    for each in reports:
        n = max(each.parameters, 1)
        numbers = [each.state_bytes, each.temporary_bytes, each.bytes_accessed, each.flops]
        cells = ["-" if x is None else f"{x / n:,.2f}" for x in numbers]
        rows.append((each.target, *cells, f"{each.kernels:,}", f"{each.compile_seconds:.2f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
