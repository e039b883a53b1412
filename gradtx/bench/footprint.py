"""What the compiler says of a step: the same numbers on every run."""

from __future__ import annotations

import dataclasses
import re

from gradtx.bench.programs import Program, Tree

_NOT_KERNELS = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "conditional", "while",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What one compiled step needs.

    Attributes:
      temporaries: bytes of temporary memory per parameter.
      accessed: bytes read and written per parameter, by the compiler's own count.
      kernels: pieces of work that the program runs one after another; of a branch, all arms.
    """

    temporaries: float
    accessed: float
    kernels: int


def footprint(program: Program, shapes: Tree) -> Footprint:
    """Compiles a step for parameters of these shapes, and runs nothing."""
    compiled = program.lower(shapes).compile()
    count = sum(leaf.size for leaf in shapes.values())
    return Footprint(
        temporaries=compiled.memory_analysis().temp_size_in_bytes / count,
        accessed=compiled.cost_analysis()["bytes accessed"] / count,
        kernels=count_kernels(compiled.as_text()),
    )


def count_kernels(hlo: str) -> int:
    r"""Fusions, calls and the like in the entry computation, and in the arms of its branches.

    >>> count_kernels("ENTRY %main {\n  %a = f32[] parameter(0)\n  %b = f32[] add(%a, %a)\n}")
    1
    """
    bodies = {
        name: body.splitlines()
        for name, body in re.findall(r"^((?:ENTRY )?%[\w.-]+).*?\{\n(.*?)^\}", hlo, re.M | re.S)
    }

    def count(lines: list[str]) -> int:
        total = 0
        for line in lines:
            opcode = re.search(r" ([a-z][a-z0-9-]*)\(", line)
            total += opcode is not None and opcode[1] not in _NOT_KERNELS
            for arm in re.findall(r"(?:branch_computations=\{|body=|condition=)([^}]*)", line):
                total += sum(count(bodies[name]) for name in re.findall(r"%[\w.-]+", arm))
        return total

    return sum(count(lines) for name, lines in bodies.items() if name.startswith("ENTRY"))
