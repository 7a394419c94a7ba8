"""Queries, keys and values for the delta rule: convolved, and with keys of unit length."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import Lengths, Reset
from layers.dense import Dense
from layers.initializers import uniform_fan_in
from layers.short_conv import ShortConv


def unit(x: Float[Array, "*b k"], eps: float = 1e-6) -> Float[Array, "*b k"]:
  """x / sqrt(sum(x^2) + eps), in at least float32."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return wide * jax.lax.rsqrt(jnp.sum(jnp.square(wide), axis=-1, keepdims=True) + eps)


class ConvQKV(nn.Module):
  """q = unit(c(W_q x)) / sqrt(k), k = unit(c(W_k x)), v = c(W_v x): c is a short causal convolution, then SiLU.

  Attributes:
    heads: number of heads of queries and keys; each serves `value_heads / heads` neighbouring heads of values.
    taps: width of the convolution.
    updates: keys and values of each query, one after the other: as many times the heads, first those of the first.
    conv_bias: whether it has a bias.
  """

  heads: int
  value_heads: int
  key_size: int
  value_size: int
  taps: int = 4
  conv_bias: bool = False
  updates: int = 1

  def setup(self):
    queries, keys, values = self._widths
    dense = lambda features, axis: Dense(features, kernel_init=uniform_fan_in(), axes=("embed", axis))
    self.q_proj, self.k_proj, self.v_proj = dense(queries, "heads"), dense(keys, "kv"), dense(values, "kv")
    self.conv = ShortConv(queries + keys + values, taps=self.taps, use_bias=self.conv_bias)

  @nn.nowrap
  def init_taps(self, batch: int) -> Float[Array, "b w e"]:
    """Returns the inputs of the convolution before the first token, which are 0."""
    return jnp.zeros((batch, self.taps - 1, sum(self._widths)))

  def __call__(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w e"], *, reset: Reset = None, lengths: Lengths = None
  ) -> tuple[tuple[Float[Array, "b t h k"], Float[Array, "b t m k"], Float[Array, "b t m p"]], Float[Array, "b w e"]]:
    """Returns q, k and v by heads of values, and the last inputs of the convolution; m is `updates` h."""
    queries, keys, _ = self._widths
    mixed = jnp.concatenate([self.q_proj(x), self.k_proj(x), self.v_proj(x)], axis=-1)
    mixed, taps = self.conv(mixed, taps, reset=reset, lengths=lengths)
    q, k, v = jnp.split(jax.nn.silu(mixed), [queries, queries + keys], axis=-1)
    by_head = lambda z, size: z.reshape(*z.shape[:-1], -1, size)
    q, k = (jnp.repeat(unit(by_head(z, self.key_size)), self.value_heads // self.heads, axis=2) for z in (q, k))
    return (q * self.key_size**-0.5, k, by_head(v, self.value_size)), taps

  @property
  def _widths(self) -> tuple[int, int, int]:
    """Returns the total widths of the queries, of the keys and of the values."""
    queries = self.heads * self.key_size
    return queries, self.updates * queries, self.updates * self.value_heads * self.value_size
