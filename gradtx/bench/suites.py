"""The suites: what is measured on which parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

from gradtx.bench import lineup, measure, programs, pytorch
from gradtx.bench.footprint import Footprint, footprint
from gradtx.bench.lineup import Case
from gradtx.bench.measure import Spread
from gradtx.bench.programs import Tree

LARGE_LEAVES, SMALL_LEAVES = 20, 1000
_FEW = ("adamw",)
_SOME = ("adamw", "momentum", "lion")
_COMPILATIONS = 3


@dataclasses.dataclass(frozen=True)
class Setting:
    """How everything is measured.

    Attributes:
      bandwidth: of the device's memory, bytes per second.
      optax: the module, or `None`.
      torch: the module, or `None`.
      torch_device: PyTorch's name of the device.
      optimizers: names; `None` for each suite's own choice.
      size: rows and columns of a large leaf.
      leaves: number of leaves; `None` for each suite's own.
      repeats: measurements of each; `None` for as many as a few seconds hold.
    """

    bandwidth: float
    optax: ModuleType | None = None
    torch: ModuleType | None = None
    torch_device: str = "cpu"
    optimizers: tuple[str, ...] | None = None
    size: int = 1000
    leaves: int | None = None
    repeats: int | None = None

    def names(self, usual: Sequence[str]) -> Sequence[str]:
        """The optimizers that were asked for, or else the usual ones."""
        return usual if self.optimizers is None else self.optimizers

    def large(self) -> Tree:
        return programs.large_tree(self.leaves or LARGE_LEAVES, self.size)

    def small(self) -> Tree:
        return programs.small_tree(self.leaves or SMALL_LEAVES)


@dataclasses.dataclass(frozen=True)
class TimedRow:
    """Seconds of each contender.

    Attributes:
      suite: the suite's name.
      case: what was measured.
      seconds: by contender, gradtx first.
      ratios: gradtx's seconds over each other contender's.
      floor: seconds that the bytes which have to be moved take at the copy bandwidth; `None`
        where memory is not what it is about.
      rounds: measurements of each.
    """

    suite: str
    case: str
    seconds: dict[str, Spread]
    ratios: dict[str, Spread]
    floor: float | None
    rounds: int


@dataclasses.dataclass(frozen=True)
class MemoryRow:
    """The compiler's figures of each contender.

    Attributes:
      suite: the suite's name.
      case: what was compiled.
      floor: bytes per parameter that have to be moved; of a window of accumulated gradients,
        by the step that closes it.
      footprints: by contender, gradtx first.
    """

    suite: str
    case: str
    floor: float
    footprints: dict[str, Footprint]


Row = TimedRow | MemoryRow


def large(setting: Setting) -> Iterator[Row]:
    """A step of every optimizer that gradtx and Optax both have, on large matrices."""
    names = setting.names(list(lineup.recipes(setting.optax)))
    yield from _steps("large", lineup.plain(names, setting.optax), setting.large(), setting)


def many_leaves(setting: Setting) -> Iterator[Row]:
    """A step on many small leaves, where what matters is the cost of each leaf."""
    names = setting.names(_SOME)
    makers = (lineup.plain, lineup.clipped, lineup.flattened)
    cases = [case for made in makers for case in made(names, setting.optax)]
    yield from _steps("many-leaves", cases, setting.small(), setting)


def wrappers(setting: Setting) -> Iterator[Row]:
    """A step of an optimizer in wrappers, on large matrices; in a window, the mean step."""
    names = setting.names(_FEW)
    cases = lineup.clipped(names, setting.optax) + lineup.wrapped(names, setting.optax)
    yield from _steps("wrappers", cases, setting.large(), setting)


def memory(setting: Setting) -> Iterator[Row]:
    """What the compiler says of a step on large matrices."""
    names = setting.names(list(lineup.recipes(setting.optax)))
    wrapped = setting.names(_FEW)
    shapes = setting.large()
    count = sum(leaf.size for leaf in shapes.values())
    for case in [
        *lineup.plain(names, setting.optax),
        *lineup.clipped(wrapped, setting.optax),
        *lineup.wrapped(wrapped, setting.optax),
    ]:
        # One compiled step is no window: it is the step that closes one, if need be.
        case = dataclasses.replace(case, inner=None, window=1)
        yield MemoryRow(
            "memory",
            case.name,
            programs.floor_bytes(case, shapes) / count,
            {
                label: footprint(program, shapes)
                for label, program in programs.programs(case, setting.optax).items()
            },
        )


def compilation(setting: Setting) -> Iterator[Row]:
    """Seconds to trace and lower, and to compile, a step on many small leaves."""
    names = setting.names(_FEW)
    shapes = setting.small()
    few = dict(list(shapes.items())[:2])
    makers = (lineup.plain, lineup.clipped, lineup.flattened)
    for case in [case for made in makers for case in made(names, setting.optax)]:
        contenders = programs.programs(case, setting.optax)
        for program in contenders.values():  # what a process does once, such as imports
            programs.timed_compilation(program, few)()
        measured = measure.interleave(
            {k: programs.timed_compilation(program, shapes) for k, program in contenders.items()},
            setting.repeats or _COMPILATIONS,
        )
        for i, part in enumerate(("trace and lower", "compile")):
            seconds = {label: [pair[i] for pair in pairs] for label, pairs in measured.items()}
            yield _timed_row("compile", f"{case.name}: {part}", seconds, None)


SUITES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "large": large,
    "many-leaves": many_leaves,
    "wrappers": wrappers,
    "memory": memory,
    "compile": compilation,
}


def title(suite: str, setting: Setting) -> str:
    """One line on what a suite measures, and on what."""
    many = f"{setting.leaves or SMALL_LEAVES:,} leaves of 20 elements, float32"
    big = f"{setting.leaves or LARGE_LEAVES:,} leaves of ({setting.size}, {setting.size}), float32"
    return {
        "large": f"large: one step, {big}",
        "many-leaves": f"many-leaves: one step, {many}",
        "wrappers": f"wrappers: one step (of a window, the mean step), {big}",
        "memory": f"memory: one compiled step, {big}",
        "compile": f"compile: one step from nothing, {many}",
    }[suite]


def _steps(suite: str, cases: Sequence[Case], shapes: Tree, setting: Setting) -> Iterator[Row]:
    params = programs.random_like(shapes, 0.1, seed=0)
    grads = programs.random_like(shapes, 0.01, seed=1)
    for case in cases:
        contenders = {
            label: programs.timed_step(program, params, grads, case.window)
            for label, program in programs.programs(case, setting.optax).items()
        }
        if setting.torch is not None and case.torch is not None:
            contenders |= pytorch.timed_steps(
                setting.torch, case.torch, params, grads, setting.torch_device
            )
        rounds = measure.enough_rounds(contenders)
        seconds = measure.interleave(contenders, setting.repeats or rounds, warm=True)
        floor = programs.floor_bytes(case, shapes) / setting.bandwidth
        yield _timed_row(suite, case.name, seconds, floor)


def _timed_row(
    suite: str, case: str, seconds: dict[str, list[float]], floor: float | None
) -> TimedRow:
    own = seconds["gradtx"]
    return TimedRow(
        suite,
        case,
        {label: Spread.of(values) for label, values in seconds.items()},
        {k: measure.ratios(own, values) for k, values in seconds.items() if k != "gradtx"},
        floor,
        rounds=len(own),
    )
