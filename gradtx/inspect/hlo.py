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
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")


class Work(NamedTuple):
    """What a program does: the kernels it launches, and the bytes these read and write."""

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


def _work(
    name: str, computations: dict[str, list[_Instruction]], only_arrays: bool
) -> Work:
    instructions = computations[name]
    shapes = {each.name: each.shape for each in instructions}
    done = []
    for each in instructions:
        if each.opcode in _CONTROL_FLOW:
            called = [
                _work(inner, computations, only_arrays)
                for _, names in _CALLED.findall(each.attributes)
                for inner in _NAME.findall(names)
            ]
            done.append(_most(called) if each.opcode == "conditional" else _sum(called))
        elif each.opcode not in _FREE and not _FREE_CALL.search(each.attributes):
            done.append(_own_work(each, [shapes[o] for o in each.operands], only_arrays))
    return _sum(done)


def _own_work(instruction: _Instruction, operands: list[str], only_arrays: bool) -> Work:
    # An asynchronous instruction is a pair: what starts it reads, what ends it has the result.
    starts, ends = (instruction.opcode.endswith(end) for end in ("-start", "-done"))
    read = 0 if ends else sum(map(_bytes, operands))
    written = 0 if starts else _bytes(instruction.shape)
    scalar = not any(map(_holds_an_array, [*operands, instruction.shape]))
    counts = not (ends or (only_arrays and (starts or scalar)))
    return Work(int(counts), read + written)


def _sum(works: Iterable[Work]) -> Work:
    return Work(*map(sum, zip(*works, strict=True))) if (works := [*works]) else Work(0, 0)


def _most(works: Iterable[Work]) -> Work:
    return Work(*map(max, zip(*works, strict=True)))


def _bytes(shape: str) -> int:
    total = 0
    for kind, bits, sizes in _ARRAY.findall(shape):
        width = 8 if kind == "pred" else int(bits or 0)
        total += math.ceil(width * _product(sizes) / 8)
    return total


def _holds_an_array(shape: str) -> bool:
    return any(sizes for *_, sizes in _ARRAY.findall(shape))


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
