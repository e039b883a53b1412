"""Two small Flax NNX networks for the race."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx


class DigitNetwork(nnx.Module):
    """64 pixels, one hidden layer, ten logits.

    Args:
      hidden: width of the hidden layer.
      rngs: where the initial weights come from.
    """

    def __init__(self, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, 10, rngs=rngs)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """Logits of shape (n, 10) for pixels of shape (n, 64)."""
        return self.logits(nnx.relu(self.hidden(pixels)))


class CharacterTransformer(nnx.Module):
    """A decoder of one block: each position predicts the character after it.

    Args:
      alphabet_size: number of different characters.
      length: number of positions.
      width: features at each position.
      heads: attention heads; divides `width`.
      rngs: where the initial weights come from.
    """

    def __init__(
        self, alphabet_size: int, length: int, width: int, heads: int, *, rngs: nnx.Rngs
    ) -> None:
        self.characters = nnx.Embed(alphabet_size, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.widen = nnx.Linear(width, 2 * width, rngs=rngs)
        self.narrow = nnx.Linear(2 * width, width, rngs=rngs)
        self.last_norm = nnx.LayerNorm(width, rngs=rngs)
        self.logits = nnx.Linear(width, alphabet_size, rngs=rngs)

    def __call__(self, codes: jax.Array) -> jax.Array:
        """Logits of shape (n, length, alphabet_size) for codes of shape (n, length)."""
        x = self.characters(codes) + self.positions(jnp.arange(codes.shape[1]))[None]
        x = x + self.attention(self.attention_norm(x), mask=nnx.make_causal_mask(codes))
        x = x + self.narrow(nnx.relu(self.widen(self.mlp_norm(x))))
        return self.logits(self.last_norm(x))
