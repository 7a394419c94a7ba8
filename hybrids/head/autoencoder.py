"""A whole row written again from its pooled outputs: what the state of a body has kept of the row."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.head.classifier import Pool, Pooled
from hybrids.head.cross_entropy import cross_entropy
from hybrids.head.head import Outputs, Sums
from layers import Dense, RMSNorm
from layers.activations import gelu_tanh
from layers.positions import sinusoidal
from mistake import Mistake


class Autoencoder(Pool, kw_only=True):
  """logits_i = W_3 n(f(n(f(n(u + p_i))))) of token i, f(z) = gelu_tanh(W z), u the pooled outputs, n an RMS norm.

  Source: the decoder of MAD's compression task (Poli et al. 2024, arXiv:2403.17844; its `auto_encoder.py`), with the
  sinusoidal positions p of Vaswani et al. 2017. An answer has as many tokens as the row that was read in one call.

  Attributes:
    vocab: tokens there are.
    pool: "last" is MAD's.
  Raises:
    ValueError: when made, if the task has no vocabulary or the width is odd.
  """

  vocab: int | None = None
  pool: str = "last"

  def __post_init__(self):
    if self.vocab is None:
      raise Mistake("head 'autoencoder' writes tokens, but the task has no vocab")
    if self.width % 2:
      raise Mistake(f"head 'autoencoder' needs an even width, not {self.width}: positions are sines and cosines")
    super().__post_init__()

  def setup(self):
    self.norms = [RMSNorm(axis=axis) for axis in ("embed", "mlp", "embed")]
    self.maps = [Dense(self.width, use_bias=True, axes=axes) for axes in (("embed", "mlp"), ("mlp", "embed"))]
    self.out_proj = Dense(self.vocab, use_bias=True, axes=("embed", "vocab"))

  def answer(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "b t v"], Pooled]:
    """Returns the logits of each token of each row, and the next state."""
    value, state = self.pooled(outputs, state)
    x = value[:, None] + sinusoidal(jnp.arange(outputs.y.shape[1]), self.width).astype(value.dtype)
    for norm, linear in zip(self.norms, self.maps):
      x = gelu_tanh(linear(norm(x)))
    return self.out_proj(self.norms[2](x)), state

  def score(self, answer: Float[Array, "b t v"], targets: Int[Array, "b t"], weights: Float[Array, "b t"]) -> Sums:
    """Returns the sums of the cross entropy and of the accuracy of all tokens."""
    return cross_entropy(answer, targets, weights)

  @nn.nowrap
  def example_targets(self, batch: int, length: int) -> Mapping[str, tuple[tuple[int, ...], Any]]:
    """Returns the shape and dtype of the targets and the weights of a batch."""
    return {"targets": ((batch, length), jnp.int32), "weights": ((batch, length), jnp.float32)}
