"""Gated DeltaNet-2: what is taken away and what is written each have a gate of every channel. State: fixed.

Hatamizadeh, Choi & Kautz 2026, arXiv:2605.22791.
"""

import jax
from jaxtyping import Array, Float

from attention.recurrent.kda import KDA


class GatedDeltaNet2(KDA):
  """S_t = (I - k_t (b_t * k_t)^T) diag(a_t) S_{t-1} + k_t (w_t * v_t)^T,  y_t = S_t^T q_t / sqrt(k)  for each head

  with gates b = sigmoid(W_b x) of each channel of the keys (twice that with negative eigenvalues) and
  w = sigmoid(W_w x) of each channel of the values, where `kda` has one number beta for both; * is by channel, and all
  else is KDA's, but that V_2 has a bias. Departs: nothing.
  """

  gate_bias: bool = True

  def make_gates(self) -> None:
    self.b_proj = self._gate(self.qkv.heads * self.qkv.key_size)
    self.w_proj = self._gate(self.qkv.heads * self.qkv.value_size)

  def update(
    self, x: Float[Array, "b t d"], k: Float[Array, "b t h k"], v: Float[Array, "b t h p"]
  ) -> tuple[Float[Array, "b t h k"], Float[Array, "b t h p"], Float[Array, "b t h k"]]:
    erase = jax.nn.sigmoid(self.b_proj(x).astype(k.dtype)).reshape(k.shape) * (2 if self.negative_eigenvalues else 1)
    write = jax.nn.sigmoid(self.w_proj(x).astype(k.dtype)).reshape(v.shape)
    return k, (write * v).astype(v.dtype), erase * k
