"""The check runs the laws that it is asked for, and names the one that does not hold."""

import jax.numpy as jnp
import pytest

import gradtx
from gradtx.testing import LAWS, check_transformation, gradients_like

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 32).reshape(8, 4), "b": jnp.ones(4, jnp.bfloat16)}


def scale_rule(u, *, c):
    return c * u


class needs_the_loss(gradtx.GradientTransformation):
    rate: float = 1.0
    requires = ("value",)

    def init(self, params):
        return gradtx.EmptyState()

    def transform(self, updates, state, params, **extra_args):
        return gradtx.map_leaves(scale_rule, updates, c=extra_args["value"]), state


class needs_the_gradient(needs_the_loss):
    requires = ("grad",)

    def transform(self, updates, state, params, **extra_args):
        return extra_args["grad"], state


def test_the_error_names_the_law_and_the_transformation():
    name = r"scans: needs_the_loss\(rate=1.0\): .*'value'"
    with pytest.raises(AssertionError, match=f"^{name}") as caught:
        check_transformation(needs_the_loss(), PARAMS, laws=["is_a_value", "scans"])
    assert isinstance(caught.value.__cause__, TypeError)


def test_extra_arguments_reach_every_update_and_step():
    check_transformation(needs_the_loss(), PARAMS, value=2.0)
    for law in LAWS:
        if law in ("is_a_value", "initialises_abstractly", "tells_what_is_wrong"):
            continue  # make no update, or one that is refused before
        with pytest.raises(AssertionError, match="needs the extra argument 'value'"):
            check_transformation(needs_the_loss(), PARAMS, laws=[law])


def test_gradients_are_given_to_what_requires_them():
    laws = ["has_a_type_fixed_point", "passes_over_other_leaves", "tells_what_is_wrong"]
    check_transformation(needs_the_gradient(), PARAMS, laws=laws)
    with pytest.raises(AssertionError, match=r"^passes_over_other_leaves: needs_the_gradient\("):
        check_transformation(
            needs_the_gradient(), PARAMS, laws=laws, grad=gradients_like(PARAMS, seed=1)
        )


def test_functions_pass_through_jit():
    check_transformation(needs_the_loss(), PARAMS, laws=["scans"], value=2.0, value_fn=len)


def test_extra_arguments_that_are_ignored_do_no_harm():
    check_transformation(gradtx.sgd(0.1), PARAMS, value=2.0)


def test_unknown_law():
    with pytest.raises(KeyError):
        check_transformation(gradtx.sgd(0.1), PARAMS, laws=["nonsense"])


def test_gradients_are_reproducible_and_typed():
    one, same = gradients_like(PARAMS), gradients_like(PARAMS)
    assert jnp.array_equal(one["w"], same["w"]) and one["b"].dtype == jnp.bfloat16
    assert gradients_like(PARAMS, dtype=jnp.float16)["w"].dtype == jnp.float16
    assert not jnp.array_equal(one["w"], gradients_like(PARAMS, seed=1)["w"])
