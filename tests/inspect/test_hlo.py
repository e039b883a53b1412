import pytest

from gradtx.inspect.hlo import Work, work_of


def program(*instructions, before=""):
    named = ', metadata={op_name="jit(f)/mul (1)"}'
    lines = "\n".join(f"  {line}{named}" for line in instructions)
    return f"HloModule m\n{before}\nENTRY %main (x: f32[8]) -> f32[8] {{\n{lines}\n}}\n"


X = "%x = f32[8]{0} parameter(0)"
COMPUTATIONS = """
%one (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%a)
}

%two (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %n = f32[8]{0} negate(%a)
  ROOT %m = f32[8]{0} negate(%n)
}
"""


def test_a_fusion_is_one_kernel_and_names_are_free():
    text = program(
        X,
        "%c = f32[] constant(2)",
        "%f = (f32[8]{0}, bf16[8]{0}) fusion(%x, %c), kind=kLoop, calls=%two",
        "%g = bf16[8]{0} get-tuple-element(%f), index=1",
        "%b = bf16[2,4]{1,0} bitcast(%g)",
        "ROOT %t = (bf16[2,4]{1,0}) tuple(%b)",
        before=COMPUTATIONS,
    )
    assert work_of(text) == Work(1, (8 * 4 + 4) + (8 * 4 + 8 * 2))


@pytest.mark.parametrize(
    "shape, size",
    [
        ("f32[8]{0}", 32),
        ("f64[2,3]{1,0:T(8,128)}", 48),
        ("pred[5]{0}", 5),
        ("s4[3]{0}", 2),
        ("f8e4m3fn[7]{0}", 7),
        ("c64[2]{0}", 16),
        ("u32[]{:S(0)}", 4),
        ("f32[0,4]{1,0}", 0),
        ("(f32[8]{0}, (s8[3]{0}, token[]))", 35),
        ("f32[8]{0:T(128)S(1)}", 0),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert work_of(program(f"ROOT %r = {shape} rng()")) == Work(1, size)


def test_control_flow():
    call = "%r = f32[8]{0} call(%x), to_apply=%two"
    assert work_of(program(X, call, before=COMPUTATIONS)) == Work(2, 128)
    loop = "%r = f32[8]{0} while(%x), condition=%one, body=%two"
    assert work_of(program(X, loop, before=COMPUTATIONS)) == Work(3, 192)
    for branches in (
        "branch_computations={%one, %two}",
        "true_computation=%two, false_computation=%one",
    ):
        either = f"%r = f32[8]{{0}} conditional(%x, %x, %x), {branches}"
        assert work_of(program(X, either, before=COMPUTATIONS)) == Work(2, 128)
    reduce = "%r = f32[8]{0} reduce(%x, %x), dimensions={}, to_apply=%two"
    assert work_of(program(X, reduce, before=COMPUTATIONS)) == Work(1, 96)


def test_asynchronous_copies():
    text = program(
        X,
        "%s = ((f32[8]{0}), f32[4]{0:S(1)}, s32[]) slice-start(%x), slice={[0:4]}",
        "%d = f32[4]{0:S(1)} slice-done(%s)",
        "%c = (f32[4]{0}, f32[4]{0:S(1)}, u32[]) copy-start(%d)",
        "ROOT %e = f32[4]{0} copy-done(%c)",
    )
    # Four numbers are read from main memory, and four are written to it.
    assert work_of(text) == Work(2, 32)
    assert work_of(text, only_arrays=True) == Work(0, 32)


def test_what_a_tpu_does_beside_its_kernels():
    text = program(
        X,
        "%n = f32[] parameter(1)",
        "%s = f32[] multiply(%n, %n)",
        '%v = f32[8]{0} custom-call(%x), custom_call_target="ConcatBitcast"',
        '%w = f32[8]{0} custom-call(%v), custom_call_target="Sort"',
        "ROOT %t = f32[] fusion(%w), kind=kLoop, calls=%two",
        before=COMPUTATIONS,
    )
    assert work_of(text, only_arrays=True) == Work(2, 12 + 64 + 36)
    assert work_of(text).kernels == 3


def test_texts_that_are_none():
    with pytest.raises(ValueError, match="no entry computation"):
        work_of("HloModule m")
    with pytest.raises(ValueError, match="not closed"):
        work_of(program("%r = (f32[8] rng("))
