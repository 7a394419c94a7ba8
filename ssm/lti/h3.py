"""H3: a shift state space, a product, a diagonal state space, a product. State: fixed.

Fu, Dao, Saab, Thomas, Rudra & Re 2022, arXiv:2212.14052. Theirs: N -> state, L -> t, d_h -> head_dim.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels.short_conv import short_conv
from layers import param, torch_dense
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Where
from mistake import Mistake
from ssm.lti import s4d


class State(NamedTuple):
  taps: Float[Array, "b w d"]  # the keys that the shift state space still holds
  h: Complex[Array, "b m h n"]  # of every entry of k v^T; complex64


class H3(Mixer):
  """o = W_o [q_t . SSM_diag(k v^T)_t over heads],  k = SSM_shift(W_k x),  q = W_q x,  v = W_v x     alg. 1

  The shift state space moves its states on by one place a token, so that it is the short convolution with the kernel
  K_l = sum_n C_{n+l} B_n, l < state, plus D at lag 0. One diagonal state space, an S4D, serves all entries of a head's
  k v^T. Departs: nothing; where the authors' code multiplies the diagonal state space's input by B twice, we do once.
  On a CPU a convolution without a state is one FFT, whose rounding reaches earlier outputs: see `kernels.long_conv`.

  Attributes:
    state: N, of both state spaces: taps of the shift, real numbers of the diagonal.
    head_dim: size of a head; 1 makes k v^T an elementwise product.
    A_init, disc, dt_min, dt_max, copies: of the diagonal state space, see `s4d.S4D`.
  """

  width: int
  state: int = 64
  head_dim: int = 1
  A_init: str = "lin"
  disc: str = "bilinear"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  copies: int | None = None

  @nn.nowrap
  def check(self) -> None:
    if self.head_dim < 1 or self.width % self.head_dim:
      raise Mistake(f"H3: head_dim={self.head_dim} does not divide width={self.width}")
    self._make_ssm(parent=None)  # raises

  def setup(self):
    dense = functools.partial(torch_dense, self.width, fan_in=self.width, use_bias=True)
    self.q_proj, self.k_proj, self.v_proj = (dense(axes=("embed", "inner")) for _ in range(3))
    self.out_proj = dense(axes=("inner", "embed"))
    impulse = constant(jnp.arange(self.state) == 0)
    self.shift_B = param(self, "shift_B", impulse, (self.width, self.state), ("inner", "taps"), slow=True)
    self.shift_C = param(self, "shift_C", uniform_fan_in(self.state), (self.width, self.state), ("inner", "taps"))
    self.shift_D = param(self, "shift_D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    self.ssm = self._make_ssm()

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    ssm = self._make_ssm(parent=None).init_state(batch * self.head_dim**2, max_len)
    taps = jnp.zeros((batch, self.state - 1, self.width))
    return State(taps=taps, h=ssm.h.reshape(batch, self.head_dim**2, *ssm.h.shape[1:]))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    taps = jnp.zeros((x.shape[0], self.state - 1, self.width))
    kv, _ = self._entries(x, taps, where)
    return self._read(x, self.ssm(kv, **self._each(where).masks))

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    kv, taps = self._entries(x, state.taps, where)
    before = s4d.State(h=state.h.reshape(-1, *state.h.shape[2:]))
    y, ssm = self.ssm.prefill(kv, before, **self._each(where).masks)
    return self._read(x, y), State(taps=taps, h=ssm.h.reshape(state.h.shape))

  @nn.nowrap
  def _make_ssm(self, **kwargs) -> s4d.S4D:
    return s4d.within(self, self.width // self.head_dim, **kwargs)

  def _entries(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w d"], where: Where
  ) -> tuple[Float[Array, "m t h"], Float[Array, "b w d"]]:
    """Returns entries of each head's k v^T, `head_dim`^2 rows for one row of the batch; and the shift's next taps."""
    k, taps = short_conv(self.k_proj(x), self._shift_kernel(), taps, **where.masks)
    k, v = map(self._heads, (k, self.v_proj(x)))
    kv = jnp.einsum("bthk,bthv->bkvth", k, v)
    return kv.reshape(x.shape[0] * self.head_dim**2, *kv.shape[3:]), taps

  def _heads(self, z: Float[Array, "b t d"]) -> Float[Array, "b t h k"]:
    return z.reshape(*z.shape[:2], self.width // self.head_dim, self.head_dim)

  def _shift_kernel(self) -> Float[Array, "w d"]:
    """K_l = sum_n C_{n+l} B_n with D added at lag 0, which comes last."""
    n = jnp.arange(self.state)
    C = jnp.pad(self.shift_C, ((0, 0), (0, self.state)))[:, n[:, None] + n]
    K = jnp.einsum("dln,dn->dl", C, self.shift_B, precision=jax.lax.Precision.HIGHEST)
    return K.at[:, 0].add(self.shift_D).T[::-1]

  def _each(self, where: Where) -> Where:
    """Returns the masks of the rows that `_entries` makes."""
    repeat = lambda mask: None if mask is None else jnp.repeat(mask, self.head_dim**2, axis=0)
    return Where(repeat(where.reset), repeat(where.lengths))

  def _read(self, x: Float[Array, "b t d"], y: Float[Array, "m t h"]) -> Float[Array, "b t d"]:
    """Returns the output projection of q . y, summed within each head."""
    q = self._heads(self.q_proj(x))
    y = y.reshape(x.shape[0], self.head_dim, self.head_dim, *y.shape[1:])
    return self.out_proj(jnp.einsum("bthk,bkvth->bthv", q, y).reshape(x.shape))
