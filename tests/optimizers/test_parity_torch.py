"""The same numbers as PyTorch 2.13."""

import numpy as np
import pytest
import torch

import gradtx
from tests.optimizers.test_parity import GRADS, PARAMS
from tests.oracles import assert_close, descend

TORCH = [
    (gradtx.sgd(0.1), torch.optim.SGD, {"lr": 0.1}),
    (gradtx.sgd(0.1, 0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (
        gradtx.sgd(0.1, 0.9, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    (
        gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.1, 0.9)),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ),
    (
        gradtx.adagrad(0.1, 0.0, 1e-10, eps_in_sqrt=False),
        torch.optim.Adagrad,
        {"lr": 0.1},
    ),
    (
        gradtx.adagrad(0.1, 0.5, 0.1, eps_in_sqrt=False),
        torch.optim.Adagrad,
        {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 0.1},
    ),
    (
        gradtx.rmsprop(0.01, 0.99, 1e-8, eps_in_sqrt=False),
        torch.optim.RMSprop,
        {"lr": 0.01},
    ),
    (
        gradtx.rmsprop(0.01, 0.9, 1e-3, eps_in_sqrt=False, momentum=0.8),
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.8},
    ),
    (
        gradtx.rmsprop(0.01, 0.99, 1e-3, eps_in_sqrt=False, centered=True),
        torch.optim.RMSprop,
        {"lr": 0.01, "eps": 1e-3, "centered": True},
    ),
    (gradtx.adam(), torch.optim.Adam, {}),
    (
        gradtx.sgd(0.1, 0.9, weight_decay=0.1, coupling="l2"),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
    ),
    (
        gradtx.adam(0.1, eps=0.1, weight_decay=0.1, coupling="l2"),
        torch.optim.Adam,
        {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1},
    ),
    (
        gradtx.rmsprop(
            0.01, 0.99, 1e-3, eps_in_sqrt=False, momentum=0.8, weight_decay=0.1, coupling="l2"
        ),
        torch.optim.RMSprop,
        {"lr": 0.01, "eps": 1e-3, "momentum": 0.8, "weight_decay": 0.1},
    ),
    (
        gradtx.adam(0.1, 0.8, 0.95, 0.1),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1},
    ),
    (gradtx.adamw(1e-3, weight_decay=1e-2), torch.optim.AdamW, {}),
    (
        gradtx.adamw(0.1, weight_decay=0.3, eps=0.1),
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 0.3, "eps": 0.1},
    ),
    (gradtx.adamax(2e-3), torch.optim.Adamax, {}),
    (
        gradtx.adamax(0.1, 0.8, 0.9, 0.1),
        torch.optim.Adamax,
        {"lr": 0.1, "betas": (0.8, 0.9), "eps": 0.1},
    ),
    (gradtx.nadam(2e-3, momentum_decay=4e-3), torch.optim.NAdam, {}),
    (
        gradtx.nadam(0.1, 0.8, 0.95, 0.1, momentum_decay=0.5),
        torch.optim.NAdam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "momentum_decay": 0.5},
    ),
    (
        gradtx.nadamw(0.1, weight_decay=0.3, momentum_decay=4e-3),
        torch.optim.NAdam,
        {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ),
    (gradtx.amsgrad(1e-3, max_before_correction=True), torch.optim.Adam, {"amsgrad": True}),
    (
        gradtx.amsgrad(0.1, 0.8, 0.95, 0.1, max_before_correction=True),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.1, "amsgrad": True},
    ),
    (gradtx.adadelta(1.0), torch.optim.Adadelta, {}),
    (
        gradtx.adadelta(0.5, 0.8, 1e-3, weight_decay=0.3),
        torch.optim.Adadelta,
        {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.3},
    ),
    (gradtx.rprop(1e-2), torch.optim.Rprop, {}),
    (
        gradtx.rprop(0.1, 0.3, 2.0, 1e-2, 0.5),
        torch.optim.Rprop,
        {"lr": 0.1, "etas": (0.3, 2.0), "step_sizes": (1e-2, 0.5)},
    ),
    (gradtx.radam(1e-3, eps=0.0), torch.optim.RAdam, {"eps": 0.0}),
    (
        gradtx.radam(0.1, 0.8, 0.95, eps=0.0),
        torch.optim.RAdam,
        {"lr": 0.1, "betas": (0.8, 0.95), "eps": 0.0},
    ),
]


@pytest.fixture
def torch_double():
    """PyTorch keeps NAdam's product of momenta in the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("x64", "torch_double")
@pytest.mark.parametrize("tx, make, kwargs", TORCH, ids=[repr(case[0]) for case in TORCH])
def test_torch_trajectory(tx, make, kwargs):
    x = torch.tensor(PARAMS["w"], requires_grad=True)
    optimizer = make([x], **kwargs)
    expected = []
    for g in GRADS["w"]:
        x.grad = torch.tensor(g)
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    assert_close(descend(tx, PARAMS["w"], GRADS["w"]), np.stack(expected))


ADAFACTOR = [
    ({"lr": 0.01}, 0.01, {}),
    ({"lr": 0.01, "beta2_decay": -0.5, "d": 2.0}, 0.01, {"decay_rate": 0.5, "clip": 2.0}),
    ({"lr": 0.01, "weight_decay": 0.1}, 0.01, {"decay": 1e-3}),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("key", ["w", "b", "k"])
@pytest.mark.parametrize("theirs, rate, ours", ADAFACTOR)
def test_torch_adafactor(theirs, rate, ours, key):
    """Where the last two axes are the largest and the rate is below 1 / sqrt(t)."""
    rng = np.random.default_rng(1)
    shape = {"w": (3, 4), "b": (4,), "k": (2, 3, 4)}[key]
    x0, grads = rng.normal(size=shape), rng.normal(size=(40, *shape))
    x = torch.tensor(x0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adafactor([x], eps=(1e-30, 1e-3), **theirs)
    expected = []
    for g in grads:
        x.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        expected.append(x.detach().numpy().copy())
    tx = gradtx.adafactor(
        rate,
        2,
        ours.get("decay_rate", 0.8),
        clipping_threshold=ours.get("clip", 1.0),
        weight_decay_rate=ours.get("decay"),
    )
    # The scale of the parameters is taken before their decay.
    tolerance = 40 * 0.01 * ours.get("decay", 0.0) or 1e-12
    assert_close(descend(tx, x0, grads), np.stack(expected), tolerance)
