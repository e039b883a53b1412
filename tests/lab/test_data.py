import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.lab import data


def epoch_of(key, epoch, size, batch_size):
    batches = [
        data.minibatch(key, epoch, index, size, batch_size)
        for index in range(data.batches_per_epoch(size, batch_size))
    ]
    indices = np.concatenate([b.indices for b in batches])
    return indices[np.concatenate([b.weights for b in batches]) == 1]


@pytest.mark.parametrize(("size", "batch_size"), [(12, 4), (13, 4), (5, 5), (7, 1), (5, 3)])
def test_an_epoch_sees_every_example_once(size, batch_size):
    for epoch in range(3):
        assert sorted(epoch_of(jax.random.key(0), epoch, size, batch_size)) == list(range(size))


def test_epochs_and_keys_have_permutations_of_their_own():
    orders = [epoch_of(jax.random.key(k), e, 50, 8).tolist() for k in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_depends_on_key_epoch_and_index_alone():
    key = jax.random.key(3)
    whole = [data.minibatch(key, *divmod(n, 4), 14, 4) for n in range(12)]
    resumed = jax.jit(lambda n: data.minibatch(key, n // 4, n % 4, 14, 4))
    for number in (5, 11, 0):
        for a, b in zip(whole[number], resumed(number), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_short_last_batch_weighs_what_it_has():
    batch = data.minibatch(jax.random.key(0), 0, 1, size=5, batch_size=3)
    values = jnp.arange(5.0)
    mean = data.weighted_mean(data.take(values, batch), batch)
    np.testing.assert_allclose(mean, np.mean(np.asarray(batch.indices[:2])))


def test_full_batch_is_the_mean_over_all_examples():
    batch = data.full_batch(4)
    values = jnp.asarray([1.0, 2.0, 3.0, 6.0])
    assert data.weighted_mean(data.take(values, batch), batch) == 3.0


def test_digits_are_the_real_ones_split_once():
    split = data.digits()
    assert [part.pixels.shape for part in split] == [(1280, 64), (256, 64), (261, 64)]
    pixels = np.concatenate([part.pixels for part in split])
    assert pixels.min() == 0.0 and pixels.max() == 1.0
    assert len(np.unique(pixels, axis=0)) == 1797
    assert {int(d) for part in split for d in part.digits} == set(range(10))
    for a, b in zip(jax.tree.leaves(split), jax.tree.leaves(data.digits()), strict=True):
        np.testing.assert_array_equal(a, b)


def test_text_is_python_s_documentation_in_order():
    windows, alphabet = data.text(50)
    written = "".join(alphabet[i] for part in windows for i in np.asarray(part).ravel())
    assert "lambda" in written and "garbage-collected" in written
    assert len(alphabet) == len(set(alphabet))
    shares = [len(part) / sum(map(len, windows)) for part in windows]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.01)
