import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gradtx.lab.models import CharacterTransformer, DigitNetwork


def test_digit_network_gives_ten_logits():
    assert DigitNetwork(hidden=3, rngs=nnx.Rngs(0))(jnp.ones((5, 64))).shape == (5, 10)


def test_transformer_does_not_see_the_future():
    @jax.jit
    def model(codes):
        return CharacterTransformer(11, length=6, width=8, heads=2, rngs=nnx.Rngs(0))(codes)

    codes = jax.random.randint(jax.random.key(0), (2, 6), 0, 11)
    logits = model(codes)
    assert logits.shape == (2, 6, 11)
    changed = model(codes.at[:, 4].set((codes[:, 4] + 1) % 11))
    np.testing.assert_allclose(changed[:, :4], logits[:, :4], atol=1e-6)
    assert not np.allclose(changed[:, 4:], logits[:, 4:])
