"""Counting in the text of a compiled program (HLO, the language that XLA compiles to)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What names or groups buffers that are there already.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_FREE |= {"opt-barrier", "partition-id", "replica-id"}
# Calls that are none: on a TPU, what gives a buffer a name or another view.
_FREE_CALL = re.compile(r'custom_call_target="(ConcatBitcast|AllocateBuffer)"')
# Attributes that name the programs which control flow runs.
_CALLED = re.compile(r"(to_apply|body|condition|\w+_computations?)=(\{[^}]*\}|%[\w.-]+)")
_CONTROL_FLOW = {"call", "while", "conditional"}
_NAME = re.compile(r"%[\w.-]+")
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\](?:\{([^}]*)\})?")
# In a layout: the array lies in memory that is not the device's main memory, such as on-chip.
_ELSEWHERE = re.compile(r"S\([1-9]")


class Work(NamedTuple):
    """The kernels that a program launches, and the bytes it reads and writes in main memory."""

    kernels: int
    bytes_accessed: int


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str


def work_of(text: str, *, only_arrays: bool = False) -> Work:
    """Counts the kernels of a compiled program, and the bytes of their operands and results.

    A kernel is an instruction that computes or copies. A loop's body counts once, and of the
    branches of a conditional the one that does most.

    Args:
      text: of a compiled module, as `jax.stages.Compiled.as_text` returns it.
      only_arrays: leaves out what a TPU does beside its kernels: arithmetic on scalars, and
        asynchronous copies between its memories.

    Raises:
      ValueError: the text has no entry computation.

    >>> text = '''HloModule double
    ... ENTRY %main (x: f32[8]) -> f32[8] {
    ...   %x = f32[8]{0} parameter(0)
    ...   ROOT %sum = f32[8]{0} add(%x, %x)
    ... }'''
    >>> work_of(text)
    Work(kernels=1, bytes_accessed=96)
    """
    computations = dict(_computations(text))
    if "ENTRY" not in computations:
        raise ValueError("the text of the compiled program has no entry computation")
    return _work("ENTRY", computations, only_arrays)


def _work(name: str, computations: dict[str, list[_Instruction]], only_arrays: bool) -> Work:
    by_name = {each.name: each for each in computations[name]}
    done = []
    for each in by_name.values():
        if each.opcode in _CONTROL_FLOW:
            called = [
                _work(inner, computations, only_arrays)
                for _, names in _CALLED.findall(each.attributes)
                for inner in _NAME.findall(names)
            ]
            done.append(_most(called) if each.opcode == "conditional" else _sum(called))
        elif each.opcode not in _FREE and not _FREE_CALL.search(each.attributes):
            done.append(_own_work(each, by_name, only_arrays))
    return _sum(done)


def _own_work(
    instruction: _Instruction, by_name: dict[str, _Instruction], only_arrays: bool
) -> Work:
    operands = [by_name[name] for name in instruction.operands]
    if instruction.opcode.endswith("-start"):
        return Work(0 if only_arrays else 1, 0)
    if instruction.opcode.endswith("-done"):
        # An asynchronous pair moves what it results in, which may be a part of its operand.
        sources = [by_name[name].shape for start in operands for name in start.operands[:1]]
        ends = [shape for shape in (*sources, instruction.shape) if not _ELSEWHERE.search(shape)]
        return Work(0, len(ends) * _bytes(instruction.shape, anywhere=True))
    shapes = [instruction.shape, *(operand.shape for operand in operands)]
    kernels = 1 if not only_arrays or any(map(_holds_an_array, shapes)) else 0
    return Work(kernels, sum(map(_bytes, shapes)))


def _sum(works: Iterable[Work]) -> Work:
    return Work(*map(sum, zip(*works, strict=True))) if (works := [*works]) else Work(0, 0)


def _most(works: Iterable[Work]) -> Work:
    return Work(*map(max, zip(*works, strict=True)))


def _bytes(shape: str, *, anywhere: bool = False) -> int:
    total = 0
    for kind, bits, sizes, layout in _ARRAY.findall(shape):
        if anywhere or not _ELSEWHERE.search(layout):
            width = 8 if kind == "pred" else int(bits or 0)
            total += math.ceil(width * _product(sizes) / 8)
    return total


def _holds_an_array(shape: str) -> bool:
    return any(sizes for _, _, sizes, _ in _ARRAY.findall(shape))


def _product(sizes: str) -> int:
    return math.prod(map(int, filter(None, sizes.split(","))))


def _computations(text: str) -> Iterator[tuple[str, list[_Instruction]]]:
    """The instructions of each computation, by name; those of the program by `ENTRY`."""
    name, instructions = "", list[_Instruction]()
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.endswith("{"):
            name, instructions = line.split(maxsplit=1)[0], []
        elif line.startswith("}") and name:
            yield name, instructions
            name = ""
        elif name and " = " in line:
            instructions.append(_parsed(line))


def _parsed(line: str) -> _Instruction:
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", maxsplit=1)
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, rest = rest[: rest.index("(")], rest[rest.index("(") :]
    end = _closing(rest)
    # A constant's parentheses hold its value, a parameter's its number.
    operands = () if opcode in _FREE else tuple(_NAME.findall(rest[:end]))
    return _Instruction(name, shape, opcode, operands, rest[end:])


def _closing(text: str) -> int:
    """The index behind the parenthesis that closes the one at the beginning."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i + 1
    raise ValueError(f"a parenthesis is not closed in {text!r}")
