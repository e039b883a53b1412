import re

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx

PARAMS = {
    "encoder": {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2, jnp.bfloat16)},
    "head": {"w": jnp.zeros((2, 1)), "step": jnp.asarray(3), "none": None},
}


def nested():
    inner = gradtx.groups([("b$", gradtx.sgd(0.1))], default=gradtx.lion(0.1))
    by_part = gradtx.partition({"e": inner, "h": gradtx.adam(0.1)}, {"encoder": "e", "head": "h"})
    return gradtx.chain(gradtx.clip(1.0), gradtx.masked(by_part, True))


def test_stages_bytes_and_labels():
    found = gradtx.describe(nested(), PARAMS)
    assert found.parameters == 6 + 2 + 2
    # Lion's moment of encoder/w, Adam's two of head/w, and a count for each.
    assert found.state_bytes == (4 * 6 + 4) + (2 * 4 * 2 + 4)
    assert found.leaves == (
        ("encoder/b", (2,), "bfloat16", "e/b$"),
        ("encoder/w", (3, 2), "float32", "e/default"),
        ("head/w", (2, 1), "float32", "h"),
    )
    assert [(depth, text.split("(")[0], size) for depth, text, size in found.stages] == [
        (0, "chain", 48),
        (1, "clip", 0),
        (1, "masked", 48),
        (2, "partition", 48),
        (3, "e: groups", 28),
        (4, "b$: sgd", 0),
        (4, "default: lion", 28),
        (3, "h: adam", 20),
    ]
    text = str(found)
    assert "encoder/w   (3, 2)   float32    e/default" in text
    assert text.startswith("10 parameters in 3 leaves; 48 bytes of state, 4.80 per parameter")
    # A stage stands two places further in than what holds it, which is shown by its name alone.
    assert re.search(
        r"(?m)^      e: groups +28 bytes\n        b\$: sgd\(learning_rate=0.1\) ", text
    )


def test_narrow_state_counts_its_own_bytes():
    narrow = gradtx.trace(0.9, accumulator_dtype="bfloat16")
    assert gradtx.describe(narrow, {"w": jnp.zeros(5)}).state_bytes == 10


def labels_of(tx, params=PARAMS):
    return {path: label for path, *_, label in gradtx.describe(tx, params).leaves}


def test_frozen_leaves_are_told():
    mask = {"encoder": True, "head": False}
    frozen = {"encoder/b": "frozen", "encoder/w": "frozen"}
    for pattern in ("encoder", lambda path, leaf: path.startswith("encoder"), mask):
        tx = gradtx.freeze(gradtx.adam(0.1), pattern)
        assert tx.assignment(PARAMS) == frozen
        assert labels_of(tx) == frozen | {"head/w": ""}
        assert labels_of(tx, jax.eval_shape(lambda: PARAMS)) == labels_of(tx)
    assert gradtx.freeze({"encoder": False, "head": True}).assignment(PARAMS) == {
        "head/w": "frozen"
    }
    assert labels_of(gradtx.freeze(nested(), "encoder")) == frozen | {"head/w": "h"}
    assert labels_of(gradtx.chain(nested(), gradtx.freeze(mask))) == {
        "encoder/b": "e/b$/frozen", "encoder/w": "e/default/frozen", "head/w": "h",
    }  # fmt: skip
    assert "encoder/w   (3, 2)   float32    frozen" in str(
        gradtx.describe(gradtx.freeze(mask), PARAMS)
    )
    part = gradtx.selective_transform(gradtx.adam(0.1), freeze_mask=mask)
    assert labels_of(part) == {"encoder/b": "freeze", "encoder/w": "freeze", "head/w": "train"}


def test_abstract_parameters_of_any_size():
    params = {"w": jax.ShapeDtypeStruct((70_000, 1_000_000), jnp.bfloat16)}
    found = gradtx.describe(gradtx.adamw(1e-3), params)
    assert found.parameters == 70_000_000_000 and found.state_bytes == 8 * 70_000_000_000 + 4
    assert "70,000,000,000 parameters" in str(found)


def test_without_labels_or_leaves():
    assert "float32" not in str(gradtx.describe(gradtx.sgd(0.1), PARAMS))
    assert "0 parameters" in str(gradtx.describe(gradtx.sgd(0.1), {}))


def test_foreign_transformations():
    found = gradtx.describe(gradtx.chain(optax.adam(0.1)), {"w": jnp.zeros(5)})
    assert found.state_bytes == 2 * 20 + 4
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.describe(3, {})
