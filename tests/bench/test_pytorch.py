import jax.numpy as jnp
import numpy as np
import pytest
import torch

from gradtx.bench import pytorch
from gradtx.bench.lineup import Recipe, TorchRecipe

PARAMS = {"a": jnp.ones((2, 3)), "b": jnp.ones(4)}
GRADS = {"a": jnp.full((2, 3), 3.0), "b": jnp.full(4, 3.0)}


def steps(recipe):
    return pytorch.timed_steps(torch, recipe, PARAMS, GRADS, "cpu")


@pytest.mark.parametrize(
    ("name", "variants"),
    [("AdamW", ["torch fused", "torch foreach", "torch default"]),
     ("Rprop", ["torch foreach", "torch default"])],
)  # fmt: skip
def test_an_optimizer_has_the_variants_that_pytorch_has(name, variants):
    found = steps(TorchRecipe(Recipe(name)))
    assert list(found) == variants
    assert all(run() > 0 for run in found.values())


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_it_steps_with_the_gradients_and_leaves_them_to_others(monkeypatch, max_norm):
    made = []

    def sgd(parameters, **flags):
        made.append((parameters, flags))
        return original(parameters, lr=1.0, **flags)

    original = torch.optim.SGD
    sgd.__signature__ = pytorch.inspect.signature(original)
    monkeypatch.setattr(torch.optim, "SGD", sgd)
    for run in steps(TorchRecipe(Recipe("SGD"), max_norm)).values():
        run()
    size = 3.0 if max_norm is None else 1 / np.sqrt(10)
    assert [flags for _, flags in made] == [{"fused": True}, {"foreach": True}, {}]
    for parameters, _ in made:
        for parameter in parameters:
            np.testing.assert_allclose(parameter.detach(), 1 - size, rtol=1e-5)
    np.testing.assert_array_equal(GRADS["b"], 3.0)
    np.testing.assert_array_equal(PARAMS["b"], 1.0)
