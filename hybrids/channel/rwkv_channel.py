"""RWKV's channel mixing, versions 4 to 7: a perceptron that also reads the previous token. State: fixed.

Peng et al. 2023, arXiv:2305.13048; 2024, arXiv:2404.05892; 2025, arXiv:2503.14456. Theirs: C, D -> d.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from layers import Dense, param
from layers.choices import one_of
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one, place_in_depth
from layers.token_shift import token_shift

# Version -> the power of 1 - layer / depth in the power of the initial mixtures, as in BlinkDL/RWKV-LM at 524481d5:
# RWKV-v4/src/model.py; RWKV-v5/src/model.py, class RWKV_CMix_x060; RWKV-v7/train_temp/src/model.py.
POWERS = {4: 1, 6: 3, 7: 4}


class State(NamedTuple):
  """The state of one layer."""

  last: Float[Array, "b d"]  # float32, the previous token


class RWKVChannel(Mixer):
  """y = sigmoid(W_r x_r) W_v relu(W_k x_k)^2, in version 7 without the sigmoid

  with mixtures x_i = x + mu_i (x_before - x)     2305.13048, sec. 3; 2404.05892, sec. 4; 2503.14456, sec. 4.
  Departs: nothing. (Version 4's mu is 1 - mu in the paper.)

  Attributes:
    version: 4, 6 or 7.
    inner: rows of W_v. If not given, four times the width; in version 6 three and a half times, rounded down to a
      multiple of 32 unless that is 0.
    layer, depth: the layer's place in the model, which shapes the initial mixtures; the output starts at 0.
  Raises:
    ValueError: a size is below 1, there is no such version, or the layer is not one of depth.
  """

  width: int
  version: int = 7
  inner: int | None = None
  layer: int = 0
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "inner")
    place_in_depth(self)
    one_of(self, version=POWERS)

  def setup(self):
    d, inner = self.width, self.inner or _inner(self.width, self.version)
    mu = 1 - (np.arange(d) / d) ** ((1 - self.layer / self.depth) ** POWERS[self.version])
    gated = self.version < 7
    self.mu = param(self, "mu", constant(mu), (1 + gated, d), (None, "embed"), decay=False)
    # version 4 scales its orthogonal matrix by the root of the ratio of its sides
    gain = max(1, inner / d) ** 0.5 if self.version == 4 else 1.0
    keys = nn.initializers.orthogonal(gain) if gated else uniform_fan_in(gain=0.5)
    self.k_proj = Dense(inner, kernel_init=keys, axes=("embed", "mlp"))
    self.v_proj = Dense(d, kernel_init=nn.initializers.zeros, axes=("mlp", "embed"))
    self.r_proj = Dense(d, kernel_init=nn.initializers.zeros, axes=("embed", None)) if gated else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(last=jnp.zeros((batch, self.width)))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    before, last = token_shift(x, state.last, **where.masks)
    xk, *xr = (x + (before - x) * mu for mu in self.mu.astype(x.dtype))
    y = self.v_proj(jnp.square(jax.nn.relu(self.k_proj(xk))))
    if self.r_proj is not None:
      y = jax.nn.sigmoid(self.r_proj(*xr)) * y
    return y, State(last)


def _inner(width: int, version: int) -> int:
  inner = int(3.5 * width) if version == 6 else 4 * width
  return inner // 32 * 32 or inner if version == 6 else inner
