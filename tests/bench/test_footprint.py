import jax.numpy as jnp
import pytest

from gradtx.bench.footprint import count_kernels, footprint
from gradtx.bench.programs import Program, large_tree

SHAPES = large_tree(2, 100)


def test_a_step_in_place_needs_no_temporaries():
    found = footprint(
        Program(lambda p: (), lambda p, s, g: ({k: p[k] + g[k] for k in p}, s)), SHAPES
    )
    assert found.temporaries < 0.01
    assert found.accessed == pytest.approx(12, abs=0.01)
    assert found.kernels == 2


def test_a_step_that_needs_all_of_the_parameters_first_does():
    def step(params, state, grads):
        low, high = params.values()
        return dict(zip(params, (jnp.sort(high) + low.T, jnp.sort(low) + high.T), strict=True)), ()

    assert footprint(Program(lambda p: (), step), SHAPES).temporaries > 1


HLO = """HloModule x

%fused (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  %n = f32[2]{0} negate(%p)
  ROOT %a = f32[2]{0} add(%n, %p)
}

%arm.1 (q: (f32[2])) -> (f32[2]) {
  %q = (f32[2]{0}) parameter(0)
  %e = f32[2]{0} get-tuple-element(%q), index=0
  %f = f32[2]{0} fusion(%e), kind=kLoop, calls=%fused
  ROOT %t = (f32[2]{0}) tuple(%f)
}

%arm.2 (r: (f32[2])) -> (f32[2]) {
  %r = (f32[2]{0}) parameter(0)
  ROOT %c = (f32[2]{0}) copy(%r)
}

ENTRY %main (x: f32[2], i: s32[]) -> (f32[2]) {
  %x = f32[2]{0} parameter(0), metadata={op_name="x"}
  %i = s32[] parameter(1)
  %g = f32[2]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(f)/add"}
  %u = (f32[2]{0}) tuple(%g)
  ROOT %d = (f32[2]{0}) conditional(%i, %u, %u), branch_computations={%arm.1, %arm.2}
}
"""


def test_kernels_of_loops_count_once():
    found = HLO.replace("branch_computations={%arm.1, %arm.2}", "condition=%arm.2, body=%arm.1")
    assert count_kernels(found.replace("conditional(", "while(")) == 3


def test_kernels_of_arms_count_and_insides_of_fusions_do_not():
    assert count_kernels(HLO) == 3
