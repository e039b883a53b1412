import pytest

import gradtx
from gradtx.parse import ParseError, nearest, parse_transformation, split_calls

GOOD = {
    "adam(3e-3)": gradtx.adam(3e-3),
    " adam ( learning_rate = 3e-3 , b1=.5) ": gradtx.adam(3e-3, b1=0.5),
    "sgd(0.1, momentum=0.9, nesterov=True)": gradtx.sgd(0.1, momentum=0.9, nesterov=True),
    "sgd(0.1, momentum=None)": gradtx.sgd(0.1),
    "scale(-0.5)": gradtx.scale(-0.5),
    "chain(clip_by_global_norm(1.0), adam(3e-3))": gradtx.chain(
        gradtx.clip_by_global_norm(1.0), gradtx.adam(3e-3)
    ),
    "named_chain(('a', sgd(1)), ('b', clip(2.0)))": gradtx.named_chain(
        ("a", gradtx.sgd(1.0)), ("b", gradtx.clip(2.0))
    ),
    "sgd(piecewise_constant_schedule(0.1, {10: 0.5, 20: 0.5}))": gradtx.sgd(
        gradtx.piecewise_constant_schedule(0.1, {10: 0.5, 20: 0.5})
    ),
    "sgd(join_schedules([constant_schedule(1.0), constant_schedule(0.1)], [5]))": gradtx.sgd(
        gradtx.join_schedules([gradtx.constant_schedule(1.0), gradtx.constant_schedule(0.1)], [5])
    ),
    "adam(1e-3, mu_dtype='bfloat16')": gradtx.adam(1e-3, mu_dtype="bfloat16"),
}

BAD = [
    "__import__('os')",
    "__import__('os').system('true')",
    "adam.__class__",
    "adam.__class__(1)",
    "adam(1e-3).init",
    "adam(lr=open)",
    "adam(open)",
    "adam(1e-3, **{'b1': 0.5})",
    "adam(*[1e-3])",
    "adam(1e-3, mask=lambda p: p)",
    "adam([x for x in (1, 2)])",
    "adam(1e-3 if 1 else 2)",
    "adam(2 ** 10 ** 10)",
    "adam(f'{1}')",
    "adam(b'x')",
    "adam(1j)",
    "adam(...)",
    "(lambda: adam)()",
    "(x := adam(1e-3))",
    "gradtx.adam(1e-3)",
    "eval('1')",
    "exec('1')",
    "print(1)",
    "adam(1e-3)[0]",
    "adam(-'x')",
    "sgd(piecewise_constant_schedule(0.1, {[1]: 2}))",
    "sgd(piecewise_constant_schedule(0.1, {**{}}))",
    "sgd(0.1); import os",
    "sgd(0.1)\nimport os",
    "sgd(",
    "",
    "1",
    "'sgd'",
    "adam",
    "(" * 500,
    "-" * 100_000 + "1",
    "sgd(" + "9" * 5000 + ")",
    "sgd(0.1)\x00",
    "constant_schedule(0.1)",
    "EmptyState()",
    "GradientTransformation('a', 'b')",
    "stateless('f')",
    "adam(-1.0)",
    "adam('x')",
    "adam(nothing=1)",
    "chain(adam(1e-3), 3)",
    "adamm(1e-3)",
]


@pytest.mark.parametrize("text", GOOD)
def test_calls_of_public_names_with_literals_are_built(text):
    assert parse_transformation(text) == GOOD[text]


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[:40])
def test_everything_else_is_refused_in_one_line(text):
    with pytest.raises(ParseError) as caught:
        parse_transformation(text)
    assert str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["__dir__()", "__getattribute__('adam')", "adam(__sizeof__())"])
def test_what_gradtx_has_but_does_not_offer_is_not_called(text):
    with pytest.raises(ParseError, match="no public name '__"):
        parse_transformation(text)


def test_a_misspelt_name_is_told_its_neighbours():
    with pytest.raises(ParseError, match=r"'adamm'; did you mean .*adam"):
        parse_transformation("adamm(1e-3)")


def test_repr_of_a_transformation_is_call_text():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 10)))
    assert parse_transformation(repr(tx)) == tx


def test_commas_inside_brackets_do_not_split():
    text = "sgd, chain(clip(1.0), adam(3e-3)),named_chain(('a,b', sgd(1)))"
    assert split_calls(text) == [
        "sgd",
        "chain(clip(1.0), adam(3e-3))",
        "named_chain(('a,b', sgd(1)))",
    ]


@pytest.mark.parametrize("text", ["", " ", ",", "sgd,,adam", "sgd]+[adam", "sgd)", "local min"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ParseError):
        split_calls(text)


def test_nearest_falls_back_to_the_whole_choice():
    assert nearest("zzz", ["a", "b"]) == "choose from a, b"
