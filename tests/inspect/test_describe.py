import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from gradtx.core.map_params import map_slots
from gradtx.core.slot import Inner, Kind
from gradtx.inspect.describe import SHAPE_RULES
from tests.examples import EXAMPLES

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
        r"(?m)^      e: groups +28 B +2.80\n        b\$: sgd\(learning_rate=0.1\) +0 B +0.00$", text
    )


def test_narrow_state_counts_its_own_bytes():
    narrow = gradtx.trace(0.9, accumulator_dtype="bfloat16")
    assert gradtx.describe(narrow, {"w": jnp.zeros(5)}).state_bytes == 10


# The examples' masks and rules are written for these.
TREES_FOR_EXAMPLES = [
    {"w": jnp.ones((4, 3)), "b": jnp.ones(3), "embed": jnp.ones(3), "n": None, "step": 3},
    {"w": jnp.ones((4, 3)), "b": jnp.ones(3)},
    {"body": jnp.ones((4, 3)), "head": jnp.ones(3)},
]


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
    known = gradtx.describe(gradtx.chain(optax.adam(0.1)), {"w": jnp.zeros(5)})
    assert rows(known)[1] == ("mu", "like parameter", "float32", 20)  # a state as ours
    own = optax.GradientTransformation(
        lambda params: {"count": jnp.zeros((), jnp.int32), "mu": params}, lambda u, s, p: (u, s)
    )
    found = gradtx.describe(gradtx.chain(own), {"w": jnp.zeros(5)})
    assert found.state_bytes == 20 + 4
    assert rows(found) == [
        ("count", "other*", "int32", 4),
        ("mu", "like parameter*", "float32", 20),
    ]
    assert "foreign" in str(found) and "foreign" not in str(gradtx.describe(gradtx.adam(0.1), {}))
    with pytest.raises(TypeError, match="expected a gradient transformation"):
        gradtx.describe(3, {})


def test_a_foreign_init_that_takes_no_placeholder():
    def init(params):
        return params["w"] * 2, jnp.zeros((), jnp.int32)

    tx = gradtx.chain(gradtx.trace(0.9), optax.GradientTransformation(init, lambda u, s, p: (u, s)))
    assert rows(gradtx.describe(tx, {"w": jnp.zeros(5)})) == [
        ("trace", "like parameter", "float32", 20),
        ("state", "unknown*", "float32", 20),
        ("state", "unknown*", "int32", 4),
    ]


def rows(found):
    return [(s.name, s.shape_rule, s.dtype, s.bytes) for s in found.slots]


def test_slots_stand_with_the_innermost_stage_that_holds_them():
    inner = gradtx.lookahead(gradtx.adam(0.1, mu_dtype="bfloat16"), 2, 0.5)
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.accumulate(inner, 4))
    found = gradtx.describe(tx, {"w": jnp.zeros((5, 2))})
    assert [found.stages[s.stage][1].split("(")[0] for s in found.slots] == (
        ["accumulate"] * 5 + ["lookahead"] * 2 + ["adam"] * 3
    )
    assert rows(found)[2] == ("acc_grads", "like parameter", "float32", 40)
    assert rows(found)[5:] == [
        ("steps_since_sync", "count", "int32", 4),
        ("slow", "like parameter", "float32", 40),
        ("count", "count", "int32", 4),
        ("mu", "like parameter", "bfloat16", 20),
        ("nu", "like parameter", "float32", 40),
    ]
    assert all(s.paths == (("w",) if s.shape_rule == "like parameter" else ()) for s in found.slots)
    head, first, *lines = str(found).splitlines()[1:]
    assert head.split() == ["state", "/parameter"]
    assert first.split() == ["chain", "164", "B", "16.40"]
    (sync,) = [line for line in lines if "sync" in line and "count" in line]
    assert sync.split() == ["steps_since_sync", "count", "int32", "4", "B", "0.40"]
    assert lines[-1].split() == ["nu", "like", "parameter", "float32", "40", "B", "4.00"]
    # A wrapper shows its own numbers, what is inside has lines of its own.
    assert "\n  accumulate(k=4) " in str(found)
    assert "\n    lookahead(sync_period=2, slow_step_size=0.5) " in str(found)
    # What it holds stands two places further in than itself.
    indent = {words[0]: len(line) - len(line.lstrip()) for line in lines if (words := line.split())}
    assert (indent["accumulate(k=4)"], indent["skipped"], indent["slow"], indent["mu"]) == (
        2,
        4,
        6,
        8,
    )
    # The columns stand in line; the second line of Adam's text has no numbers.
    assert len({line.index("int32") for line in lines if "int32" in line}) == 1
    assert {len(line) for line in [first, *lines] if " B " in line} == {len(head)}
    assert "          mu_dtype='bfloat16')" in lines


def test_a_wrapper_shows_its_own_numbers_and_flags():
    def text(tx):
        return gradtx.describe(tx, {"w": jnp.zeros(2), "b": jnp.zeros(2)}).stages[0][1]

    inner = gradtx.sgd(0.1)
    assert text(gradtx.lookahead(inner, 2, 0.5, reset_state=True)) == (
        "lookahead(sync_period=2, slow_step_size=0.5, reset_state=True)"
    )
    assert text(gradtx.freeze(inner, "b")) == "freeze(pattern='b')"
    assert text(gradtx.masked(inner, {"w": True, "b": False})) == "masked"
    assert text(gradtx.skip_nonfinite(inner)) == "skip_nonfinite"
    k = gradtx.linear_schedule(1, 2, 3)
    assert text(gradtx.accumulate(inner, k)) == f"accumulate(k={k!r})"


def test_every_kind_of_slot_has_a_word():
    tx = gradtx.chain(
        gradtx.adafactor(0.1, min_dim_size_to_factor=2),
        gradtx.lbfgs(),
        gradtx.skip_nonfinite(gradtx.add_noise(0.1, 0.1, 0)),
        gradtx.inject_hyperparams(gradtx.scale(2.0)),
        gradtx.flatten(gradtx.trace(0.9)),
        gradtx.snapshot("x", lambda state: 3.0),
    )
    shown = {s.shape_rule for s in gradtx.describe(tx, {"w": jnp.zeros((4, 4))}).slots}
    assert shown >= {"reduced", "history", "numbers", "scalar", "count", "flag", "key"}
    assert shown >= {"named scalars", "like parameter", "own layout"}
    states = {kind.__name__ for kind in Kind.__subclasses__()} - {"Nested"}
    assert {kind.__name__ for kind in SHAPE_RULES} >= states


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_slots_of_every_example_are_its_state(name):
    for params in TREES_FOR_EXAMPLES:
        try:
            state = jax.eval_shape(EXAMPLES[name].init, params)
        except ValueError:  # its rules or masks are for another tree
            continue
        found = gradtx.describe(EXAMPLES[name], params)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        assert sum(s.bytes for s in found.slots) == size == found.state_bytes
        assert gradtx.state_bytes(EXAMPLES[name], params) == size
        assert max(map(len, str(found).splitlines())) <= 100
        assert not any("*" in s.shape_rule for s in found.slots)
        return
    pytest.fail("fits no tree")


class Blocks(NamedTuple):
    codes: Any
    scales: Any


class InBlocksState(NamedTuple):
    inner_state: Inner


class in_blocks(gradtx.GradientTransformation):
    """Stores what is large in another form, as a quantised state does."""

    inner: gradtx.GradientTransformation

    def init(self, params):
        def stored(x):
            large = x.size >= 4096
            return Blocks(jnp.zeros(x.shape, jnp.int8), jnp.zeros(x.shape[0])) if large else x

        state = self.inner.init(params)
        return InBlocksState(
            map_slots(self.inner, lambda _, tree: jax.tree.map(stored, tree), state)
        )


def test_what_stands_in_the_place_of_an_array_is_shown_with_the_leaves_that_have_it():
    params = {f"layer{i}": {"w": jnp.zeros((100, 50)), "b": jnp.zeros(50)} for i in range(8)}
    for inner in (gradtx.trace(0.9), optax.trace(0.9)):
        tx = in_blocks(gradtx.chain(inner))
        found = gradtx.describe(tx, params)
        small, large = found.slots
        assert (small.dtype, small.bytes) == ("float32", 8 * 200)
        assert small.paths == tuple(f"layer{i}/b" for i in range(8))
        assert (large.dtype, large.bytes) == ("int8 codes + float32 scales", 8 * (5000 + 400))
        assert large.paths == tuple(f"layer{i}/w" for i in range(8))
        shown = ", ".join(f"layer{i}/b" for i in range(6))
        line = f"trace in float32: {shown} and 2 more"
        assert line in str(found).splitlines()
        assert "trace in int8" not in str(found)
        first = {"layer0": params["layer0"]}
        assert "trace in float32: layer0/b" in str(gradtx.describe(tx, first)).splitlines()
        assert found.saved_in_8_bits == found.saved_in_4_bits == 0
        assert "quantize_state" not in str(found)
    split = jax.NamedSharding(jax.sharding.AbstractMesh((2,), ("x",)), jax.P("x"))
    assert [s.device_bytes for s in gradtx.describe(tx, params, split).slots] == [800, 4 * 5400]
    # Every device holds what its parameter's axis does not divide; of nothing it holds nothing.
    wide = {"w": jnp.zeros((1, 4104)), "empty": jnp.zeros((0, 8))}
    parts = jax.NamedSharding(jax.sharding.AbstractMesh((8,), ("x",)), jax.P(None, "x"))
    assert [s.device_bytes for s in gradtx.describe(tx, wide, parts).slots] == [0, 4104 // 8 + 4]


def test_what_fewer_bits_would_save():
    params = {
        "w": jax.ShapeDtypeStruct((100, 100), jnp.float32),
        "odd": jax.ShapeDtypeStruct((4097,), jnp.bfloat16),
        "small": jax.ShapeDtypeStruct((4095,), jnp.float32),
    }
    found = gradtx.describe(gradtx.chain(gradtx.trace(0.9)), params)
    # Codes, and 4 bytes for each block: one for each row, and 17 of 256.
    assert found.saved_in_8_bits == 4 * 14097 - (10_000 + 400) - (4097 + 68)
    left = (found.state_bytes - found.saved_in_8_bits) / 18192
    assert f"quantize_state: {left:.2f} in 8 bits (41.8 kB less)" in str(found)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adamw(1e-3),
        optax.adamw(1e-3),
        gradtx.adam(1e-3, mu_dtype="bfloat16"),  # is narrow already
        gradtx.adafactor(0.1, momentum=0.9),  # its rows and columns are not stored so
        gradtx.chain(gradtx.lion(1e-3), gradtx.ema_params(0.9)),  # nor what is exact
    ],
)
def test_what_is_saved_is_what_quantize_state_saves(tx):
    params = {
        "w": jax.ShapeDtypeStruct((100, 100), jnp.float32),
        "kernel": jax.ShapeDtypeStruct((3, 3, 16, 64), jnp.bfloat16),
        "odd": jax.ShapeDtypeStruct((4097,), jnp.float32),
        "complex": jax.ShapeDtypeStruct((100, 100), jnp.complex64),
        "small": jax.ShapeDtypeStruct((4095,), jnp.float32),
    }
    found = gradtx.describe(tx, params)
    for formats, saved in (("8bit", found.saved_in_8_bits), ("4bit", found.saved_in_4_bits)):
        quantized = gradtx.quantize_state(tx, formats)
        own_count = 4
        assert gradtx.state_bytes(quantized, params) == found.state_bytes - saved + own_count


MESH = jax.sharding.AbstractMesh((8, 4), ("x", "y"))


def sharding(*spec):
    return jax.NamedSharding(MESH, jax.P(*spec))


def test_bytes_on_a_device():
    params = {
        "w": jax.ShapeDtypeStruct((80, 8), jnp.bfloat16),
        "b": jax.ShapeDtypeStruct((8,), jnp.float32),
        "step": 3,
        "none": None,
    }
    shardings = {"w": sharding("x", "y"), "b": sharding("y"), "step": None, "none": None}
    tx = gradtx.chain(gradtx.adam(0.1), optax.trace(0.9), gradtx.add_noise(0.1, 0.1, 0))
    found = gradtx.describe(tx, params, shardings)
    per_device = {s.name: s.device_bytes for s in found.slots}
    like = 4 * (10 * 2) + 4 * 2
    assert per_device == {"count": 4, "mu": like, "nu": like, "trace": like, "rng_key": 8}
    assert found.device_bytes == 3 * like + 4 + 4 + 8
    text = str(found)
    assert f"{found.device_bytes:,} bytes of state on a device" in text.splitlines()[1]
    assert re.search(r"mu +like parameter +float32 +2.6 kB +\S+ +88 B", text)
    # What is not sharded, and what is given as None, is held whole.
    found = gradtx.describe(gradtx.trace(0.9), params, {**shardings, "w": None})
    assert found.device_bytes == 4 * 640 + 4 * 2
    # A prefix stands for all below; without shardings nothing is said of devices.
    assert gradtx.describe(gradtx.trace(0.9), {"w": params["w"]}, sharding("x")).device_bytes == 320
    whole = gradtx.describe(tx, params)
    assert whole.device_bytes is None and "/device" not in str(whole)
    assert {s.device_bytes for s in whole.slots} == {None}


def test_shardings_reach_through_wrappers():
    params = {"w": jax.ShapeDtypeStruct((80, 8), jnp.float32), "b": jnp.zeros(8)}
    tx = gradtx.freeze(gradtx.groups([("w", gradtx.trace(0.9))], default=gradtx.ema(0.9)), "b")
    found = gradtx.describe(gradtx.accumulate(tx, 2), params, {"w": sharding("x"), "b": None})
    assert {s.name: s.device_bytes for s in found.slots if s.paths} == {
        "acc_grads": 320 + 32,
        "trace": 320,
    }
    flat = gradtx.describe(gradtx.flatten(gradtx.trace(0.9)), params, sharding())
    assert flat.device_bytes == 4 * 648


ALL = ("x", "y")


@pytest.mark.parametrize(
    "shape, spec",
    [
        ((8, 64), (None, ALL)),  # shards of 8, shorter than blocks may be
        ((512, 1024), (None, "y")),
        ((512, 1024), ("x",)),
        ((512, 1024), ("x", "y")),
        ((64, 96), ("x", "y")),  # a block across shards
        ((1000, 1000), (None, "y")),  # and several
        ((3, 3, 64, 64), (None, None, None, ALL)),
        ((3, 3, 64, 64), (None, None, ALL)),
        ((3, 3, 64, 64), (None, None, "x", "y")),
        ((3, 3, 64, 64), ()),
        ((8192,), (ALL,)),
        ((520,), (ALL,)),  # 5 blocks, whose codes the parts would divide
    ],
)
@pytest.mark.parametrize("formats", ["8bit", "4bit"])
def test_quantised_bytes_on_a_device_are_those_of_its_arrays(shape, spec, formats):
    mesh = jax.make_mesh((2, 4), ALL, (jax.sharding.AxisType.Auto,) * 2)
    split = jax.NamedSharding(mesh, jax.P(*spec))
    params = {"w": jax.device_put(jnp.ones(shape), split), "b": jnp.ones(8)}
    tx = gradtx.freeze(gradtx.quantize_state(gradtx.lion(1e-3), formats, min_size=1), "b")
    arrays = jax.tree.leaves(tx.init(params))
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    found = gradtx.describe(tx, abstract, {"w": split, "b": None})
    assert found.state_bytes == sum(x.nbytes for x in arrays)
    assert found.device_bytes == sum(x.addressable_shards[0].data.nbytes for x in arrays)


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adafactor(1e-2),
        gradtx.adafactor(1e-2, min_dim_size_to_factor=16),
        gradtx.sm3(1e-2),
        gradtx.scale_by_lbfgs(3),
        gradtx.quantize_state(gradtx.adam(1e-2)),
        gradtx.quantize_state(gradtx.adam(1e-2), "4bit"),
    ],
    ids=repr,
)
def test_bytes_of_parameters_that_are_sharded_are_those_of_init(tx):
    """Also without shardings, of slots with fewer axes or another one in front."""
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("x"))
    params = jax.device_put(jnp.ones((1024, 48)), split)
    arrays = jax.tree.leaves(tx.init(params))
    assert gradtx.state_bytes(tx, params) == sum(x.nbytes for x in arrays)
    held = sum(x.addressable_shards[0].data.nbytes for x in arrays)
    assert gradtx.describe(tx, params, split).device_bytes == held


def test_an_axis_that_a_shape_does_not_tell_counts_whole():
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("x"))
    abstract = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    tx = gradtx.adafactor(1e-2, min_dim_size_to_factor=16)
    found = gradtx.describe(tx, abstract, split)
    assert found.device_bytes == found.state_bytes  # the row is divided, the column is not


def test_what_init_refuses_of_shardings_describe_does():
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Explicit,))
    split = jax.NamedSharding(mesh, jax.P(None, "x"))
    tx = gradtx.quantize_state(gradtx.adam(0.1), min_size=1)
    with pytest.raises(ValueError, match="'w' is in shards of 786"):
        gradtx.describe(tx, {"w": jax.ShapeDtypeStruct((16, 786 * 8), jnp.float32)}, split)
    # Nothing of it is remembered.
    assert gradtx.state_bytes(tx, {"w": jax.ShapeDtypeStruct((16, 786 * 8), jnp.float32)})


def test_shardings_that_do_not_fit():
    params = {"a": {"w": jnp.zeros((9, 8))}, "b": jnp.zeros(8)}
    with pytest.raises(ValueError, match=r"sharding of 'a/w' does not fit its shape"):
        gradtx.describe(gradtx.sgd(0.1), params, {"a": sharding("x"), "b": None})
    with pytest.raises(ValueError, match=r"sharding of 'b' does not fit its shape"):
        gradtx.describe(gradtx.sgd(0.1), params, {"a": None, "b": sharding(None, "x")})
    with pytest.raises(TypeError, match=r"sharding of 'b' must be a Sharding or None, got P\("):
        gradtx.describe(gradtx.sgd(0.1), params, {"a": None, "b": jax.P("x")})
    with pytest.raises(ValueError, match="shardings must have the structure of the parameters"):
        gradtx.describe(gradtx.sgd(0.1), params, {"a": None})


def test_lookahead_that_leaves_the_slow_parameters_to_the_caller():
    params = gradtx.LookaheadParams.init_synced({"w": jnp.zeros(3), "none": None})
    found = gradtx.describe(gradtx.lookahead(gradtx.trace(0.9), 2, 0.5), params)
    assert rows(found)[1:] == [("trace", "like parameter", "float32", 12)]
    assert found.slots[1].paths == ("w",)


def test_sizes_are_readable():
    def shown(size):
        params = jax.ShapeDtypeStruct((size,), jnp.int8)
        tx = optax.GradientTransformation(lambda _: jnp.zeros_like(params), lambda u, s, p: (u, s))
        return str(gradtx.describe(tx, {})).splitlines()[2].split()[-3:-1]

    assert shown(999) == ["999", "B"] and shown(1000) == ["1.0", "kB"]
    assert shown(2_450_000) == ["2.5", "MB"] and shown(10**12) == ["1.0", "TB"]
    assert shown(10**22) == ["10000.0", "EB"]
