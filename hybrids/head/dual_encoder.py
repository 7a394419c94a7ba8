"""One label for a pair of documents, each read by itself: Long Range Arena's retrieval."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.head.classifier import ACTIVATIONS, Classifier, Pooled
from hybrids.head.head import Outputs
from layers import Dense


class DualEncoder(Classifier, kw_only=True):
  """logits = W_2 f(W_1 [u, v, u - v, u · v]) of the pooled documents u and v     Tay et al. 2020, arXiv:2011.04006

  The inputs of a batch are "b 2 t", and what goes with them ("b 2 t" resets, "b 2" lengths) likewise.

  Attributes:
    inner: features between the maps; the model's width if not given.
    activation: f, a name of `ACTIVATIONS`: "relu" there, "gelu_tanh" in S5's.
  Raises:
    ValueError: when made, if `activation` is unknown or `inner` below 1.
  """

  DOCUMENTS = 2

  def setup(self):
    self.in_proj = Dense(self.inner or self.width, use_bias=True, axes=("embed", "mlp"))
    self.out_proj = Dense(self.classes, use_bias=True, axes=("mlp", None))

  def answer(self, outputs: Outputs, state: Pooled) -> tuple[Float[Array, "p c"], Pooled]:
    """Returns logits of each pair's label; the rows of `outputs` are both documents of a pair, one after the other."""
    value, state = self.pooled(outputs, state)
    u, v = value[0::2], value[1::2]
    features = self.in_proj(jnp.concatenate([u, v, u - v, u * v], axis=-1))
    return self.out_proj(ACTIVATIONS[self.activation](features)), state
