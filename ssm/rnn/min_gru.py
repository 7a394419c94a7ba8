"""minGRU: a GRU whose gate does not see the state, so that a linear scan runs it in parallel. State: fixed.

Feng et al. 2024, arXiv:2410.01201. Theirs: h tilde -> n, alpha -> expand.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.linear_scan import linear_scan
from layers import torch_dense
from layers.choices import one_of
from layers.mixer import Mixer, Where
from mistake import Mistake

CANDIDATES = {"linear": lambda x: x, "positive": lambda x: jnp.where(x >= 0, x + 0.5, jax.nn.sigmoid(x))}


class State(NamedTuple):
  h: Float[Array, "b e"]  # float32


class MinGRU(Mixer):
  """h_t = (1 - z_t) h_{t-1} + z_t n_t,  z_t = sigmoid(W_z x_t + b_z),  n_t = W_n x_t + b_n     sec. 3.1

  and y = h, or W_out h + b_out where the state is wider than the model. Departs: computed as above and not in
  logarithms (app. B), which gain nothing for a scan that never divides by products of decays. h starts at 0.

  Attributes:
    expand: width of the state over that of the model, e / d.
    candidate: "linear", or "positive": n_t = g(W_n x_t + b_n) with g(v) = v + 1/2 for v >= 0, else sigmoid(v), as in
      the version in logarithms.
  """

  width: int
  expand: int = 1
  candidate: str = "linear"

  @nn.nowrap
  def check(self) -> None:
    if self.expand < 1:
      raise Mistake(f"MinGRU: expand={self.expand}; it must be at least 1")
    one_of(self, candidate=CANDIDATES)

  def setup(self):
    inner = self.expand * self.width
    dense = functools.partial(torch_dense, use_bias=True)
    self.z_proj = dense(inner, ("embed", "inner"), fan_in=self.width)
    self.n_proj = dense(inner, ("embed", "inner"), fan_in=self.width)
    if self.expand > 1:
      self.out_proj = dense(self.width, ("inner", "embed"), fan_in=inner)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(h=jnp.zeros((batch, self.expand * self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    h, last = linear_scan(*self._gate(x), state.h, **where.masks)
    return self._read(h.astype(x.dtype)), State(h=last)

  def _gate(self, x: Float[Array, "*b d"]) -> tuple[Float[Array, "*b e"], Float[Array, "*b e"]]:
    """Returns the factors 1 - z and z n in at least float32; 1 - z is a sigmoid, since the difference would cancel."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    z, n = self.z_proj(x).astype(wide), self.n_proj(x).astype(wide)
    return jax.nn.sigmoid(-z), jax.nn.sigmoid(z) * CANDIDATES[self.candidate](n)

  def _read(self, h: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    return h if self.expand == 1 else self.out_proj(h)
