"""What the compiled steps of the public optimizers cost; `python -m tests.inspect.pin` pins it.

The command writes `compiled_cpu.json` anew, which `test_compile_report.py` holds every later
change to. `python -m tests.inspect.pin TARGET ...` prints the table of docs/performance.md.
"""

import json
import pathlib
import platform
import sys

import jax
import jax.numpy as jnp

import gradtx
from tests.examples import EXAMPLES, public_transformations

TABLE = pathlib.Path(__file__).with_name("compiled_cpu.json")
PINNED = ("temporary_bytes", "bytes_accessed", "kernels")
SMALL = {name: jax.ShapeDtypeStruct((256, 256), jnp.float32) for name in "abcd"}
LARGE = {f"leaf {i}": jax.ShapeDtypeStruct((1000, 1000), jnp.float32) for i in range(20)}


def half_square(params):
    return sum(0.5 * jnp.sum(x * x) for x in jax.tree.leaves(params))


def optimizers():
    """Every example of every public optimizer, and what is often put around one."""
    adamw = gradtx.adamw(1e-3)
    found = {
        name: tx
        for name, tx in EXAMPLES.items()
        if "optimizers" in public_transformations()[name.rpartition("-")[0]].__module__
        and not name.startswith(("scale_by_", "lookahead_trace"))
    }
    return found | {
        "clip, adamw": gradtx.chain(gradtx.clip(1.0), adamw),
        "clip_by_global_norm, adamw": gradtx.chain(gradtx.clip_by_global_norm(1.0), adamw),
        "add_decayed_weights, adam": gradtx.chain(
            gradtx.add_decayed_weights(0.01), gradtx.adam(1e-3)
        ),
        "skip_nonfinite(adamw)": gradtx.skip_nonfinite(adamw),
        "apply_if_finite(adamw)": gradtx.apply_if_finite(adamw, 3),
        "accumulate(adamw, 4)": gradtx.accumulate(adamw, 4),
        "MultiSteps(adamw, 4)": gradtx.MultiSteps(adamw, 4),
    }


def report(tx, params, target="cpu"):
    """`compile_report` with whatever extra arguments the transformation needs."""
    extra_args = {"value": 1.0, "grad": params, "value_fn": half_square}
    needed = {name: extra_args[name] for name in tx.required_extra_args}
    return gradtx.compile_report(tx, params, target, **needed)


def pinned(tx):
    found = report(tx, SMALL)
    return {name: getattr(found, name) for name in PINNED}


def made_with():
    """What exact numbers depend on."""
    return {"jax": jax.__version__, "machine": platform.machine()}


def write():
    rows = {name: pinned(tx) for name, tx in optimizers().items()}
    TABLE.write_text(json.dumps({"made_with": made_with(), "rows": rows}, indent=1) + "\n")


def print_table(targets):
    """A row for each step: for each target temporaries and traffic per parameter, and so on."""
    head = ["step", "state"]
    for target in targets:
        head += [f"{target}: temporaries", "accessed", "kernels", "compile, s"]
    print("|", " | ".join(head), "|\n" + "|---" * len(head) + "|")
    for name, tx in optimizers().items():
        reports = [report(tx, LARGE, target) for target in targets]
        cells = [name, f"{reports[0].state_bytes / reports[0].parameters:.2f}"]
        for r in reports:
            each = (r.temporary_bytes / r.parameters, r.bytes_accessed / r.parameters)
            cells += [*(f"{x:.2f}" for x in each), f"{r.kernels:,}", f"{r.compile_seconds:.1f}"]
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        print_table(sys.argv[1:])
    else:
        write()
