"""Every public transformation, made by the examples in its own docstring.

A new transformation joins the property suite by being public: each line `>>> tx = ...` of its
docstring is one of its examples here.
"""

import doctest
import inspect

import jax
import jax.numpy as jnp

import gradtx


def public_transformations():
    """From name to class, for every public transformation."""
    return {
        name: value
        for name, value in vars(gradtx).items()
        if name in gradtx.__all__
        and inspect.isclass(value)
        and issubclass(value, gradtx.GradientTransformation)
        and value is not gradtx.GradientTransformation
    } | {"inject_hyperparams": gradtx.inject_hyperparams}


def examples_of(name):
    """The transformations that the docstring of a public name builds as `tx`."""
    names = {"gradtx": gradtx, "jax": jax, "jnp": jnp}
    found = []
    for example in doctest.DocTestParser().get_examples(getattr(gradtx, name).__doc__ or ""):
        if example.source.startswith(("tx = ", "def ")):
            exec(example.source, names)
        if example.source.startswith("tx = "):
            found.append(names["tx"])
    return found


EXAMPLES = {
    f"{name}-{i}": tx for name in public_transformations() for i, tx in enumerate(examples_of(name))
}
