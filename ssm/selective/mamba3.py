"""Mamba-3: a state space per head that turns as it decays, fed by two tokens at a time. State: fixed.

Lahoti et al. 2026, arXiv:2603.15569. Theirs: D -> d, N -> state, P -> head_size, H -> h, R -> rank, Delta -> dt.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from kernels.inputs import Lengths, Reset
from kernels.ssd import ssd
from layers import GatedRMSNorm, RMSNorm, param, torch_dense
from layers.choices import one_of
from layers.initializers import constant, softplus_step
from layers.lengths import blank_past, last_of
from layers.mixer import Mixer, Where
from layers.rotation import rotate, turns, unit
from layers.sizes import at_least_one, largest_divisor, scaled
from mistake import Mistake

# f with A = -f(.): "softplus" as first released, "heavy_tail" since June 2026
A_ACTIVATIONS = {
  "softplus": jax.nn.softplus,
  "heavy_tail": lambda x: jnp.maximum(x, 0) + 1 / (1 - jnp.minimum(x, 0)),
}


class State(NamedTuple):
  """The state of one layer, in float32 and complex64."""

  S: Float[Array, "b h k p"]
  turn: Complex[Array, "b h s"]  # exp(i theta): how far each pair of rows has turned since the document's start
  k: Float[Array, "b r h k"]  # of the last token, turned
  u: Float[Array, "b h p"]  # of the last token


class Token(NamedTuple):
  """Everything that is computed from each token alone."""

  z: Float[Array, "*b h p"]
  u: Float[Array, "*b h p"]
  k: Float[Array, "*b r h k"]
  q: Float[Array, "*b r h k"]
  log_a: Float[Array, "*b h"]
  now: Float[Array, "*b h"]  # lam dt, the weight of this token
  carried: Float[Array, "*b h"]  # (1 - lam) dt, the weight of the token before, besides the decay
  angle: Float[Array, "*b h s"]


class Mamba3(Mixer):
  """S_t = a_t (S_{t-1} + (1 - lam_t) dt_t k_{t-1} u_{t-1}^T) + lam_t dt_t k_t u_t^T,  y_t = S_t^T q_t + D u_t

  for each head, with a = exp(dt A), k = R(theta_t) (norm(B) + b_B), q = R(theta_t) (norm(C) + b_C), where R turns pairs
  of rows and theta_t = theta_{t-1} + pi tanh(angle_t) dt_t: the trapezoidal rule for a state space with complex A. A,
  dt, lam = sigmoid(.), angle, B, C, u and z come from W_in x, and W_out (y SiLU(z)) is the result.

  With rank R > 1 there are R inputs u^r = m_u^r u with k^r, which add up in S, and R outputs from q^r, each gated by
  m_z^r z; the result is W_out sum_r m_o^r y^r ("MIMO").
  Departs: theta is kept as exp(i theta), the product of turns, whose error does not grow with theta.

  Attributes:
    state: N, rows of S.
    expand: inner width / d.
    head_size: P, columns of S; the largest divisor of the inner width not above 64, if not given.
    groups: heads in a row share B and C, but for the biases.
    rank: R; 1 is "SISO".
    rope_fraction: how many of the rows turn. Pairs are rows 2i and 2i + 1.
    A_activation: A = -f(.), f being "heavy_tail", 1 + x or 1 / (1 - x), or "softplus", as first released.
    A_floor: -A is at least that.
    out_norm: y^r is normalised for each head before it is gated.
    norm_eps: the epsilon of all norms.
    dt_min, dt_max, dt_floor: softplus(dt_bias) starts log-uniform in [dt_min, dt_max], and at least at dt_floor.
    depth: layers of the model; W_out starts smaller by its square root.
  """

  width: int
  state: int = 128
  expand: int = 2
  head_size: int | None = None
  groups: int = 1
  rank: int = 1
  rope_fraction: float = 0.5
  A_activation: str = "heavy_tail"
  A_floor: float = 1e-4
  out_norm: bool = False
  norm_eps: float = 1e-5
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  dt_floor: float = 1e-4
  depth: int = 1

  def setup(self):
    inner, heads, size = self._sizes
    features = 2 * inner + 2 * self.rank * self.groups * self.state + 3 * heads + self._pairs
    self.in_proj = torch_dense(features, ("embed", "inner"))
    self.out_proj = torch_dense(self.width, ("inner", "embed"), gain=self.depth**-0.5)
    dt_bias = softplus_step(self.dt_min, self.dt_max, self.dt_floor)
    self.dt_bias = param(self, "dt_bias", dt_bias, (heads,), ("heads",), slow=True)
    self.D = param(self, "D", nn.initializers.ones, (heads,), ("heads",))
    self.B_norm, self.C_norm = (RMSNorm(eps=self.norm_eps, axis="state") for _ in "BC")
    shape, axes = (self.rank, heads, self.state), (None, "heads", "state")
    by_row = lambda name: param(self, name, nn.initializers.ones, shape, axes, decay=False)
    self.B_bias, self.C_bias = by_row("B_bias"), by_row("C_bias")
    if self.rank > 1:
      shape, axes = (self.rank, heads, size), (None, "heads", None)
      mimo = lambda name, value: param(self, name, constant(value), shape, axes, decay=False)
      self.mimo_u, self.mimo_z = mimo("mimo_u", 1 / self.rank), mimo("mimo_z", 1.0)
      self.mimo_o = mimo("mimo_o", 1 / self.rank)
    if self.out_norm:
      self.gated_norm = GatedRMSNorm("norm_first", groups=heads, eps=self.norm_eps)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    _, heads, size = self._sizes
    return State(
      S=jnp.zeros((batch, heads, self.state, size)),
      turn=jnp.ones((batch, heads, self._pairs), complex),
      k=jnp.zeros((batch, self.rank, heads, self.state)),
      u=jnp.zeros((batch, heads, size)),
    )

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    token = self._select(x, where.lengths)
    turn = turns(token.angle, state.turn, where.reset)
    by_rank = turn[:, :, None]
    token = token._replace(q=rotate(token.q, by_rank), k=rotate(token.k, by_rank))
    y, S = self._scan(token, state, where.reset)
    k, u = last_of(token.k, state.k, where.lengths), last_of(token.u, state.u, where.lengths)
    y = self._gate(y, token.u, token.z, x.dtype)
    return y, State(S=S, turn=turn[:, -1], k=k, u=u)

  def mix_token(self, x, state: State, side):
    token = self._select(x)
    turn = unit(state.turn * jnp.exp(1j * token.angle))
    q, k = rotate(token.q, turn[:, None]), rotate(token.k, turn[:, None])
    S = state.S + token.carried[..., None, None] * self._outer(state.k, state.u)
    S = jnp.exp(token.log_a)[..., None, None] * S + token.now[..., None, None] * self._outer(k, token.u)
    y = jnp.einsum("bhkp,brhk->brhp", S, q)
    return self._gate(y, token.u, token.z, x.dtype), State(S=S, turn=turn, k=k, u=token.u)

  @property
  def _sizes(self) -> tuple[int, int, int]:
    """Returns the inner width, the number of heads, and the size of one."""
    inner = self.expand * self.width
    size = self.head_size or largest_divisor(inner, 64)
    return inner, inner // size, size

  @property
  def _pairs(self) -> int:
    return scaled(self.rope_fraction, self.state) // 2

  def _select(self, x: Float[Array, "*b d"], lengths: Lengths = None) -> Token:
    """Returns all that is W_in x, in at least float32; dt is 0 in the padding, where the state then stands still."""
    inner, heads, size = self._sizes
    mixed = self.rank * self.groups * self.state
    sizes = np.cumsum([inner, inner, mixed, mixed, heads, heads, heads])
    z, u, B, C, dt, A, lam, angle = jnp.split(self.in_proj(x), sizes, axis=-1)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    dt = blank_past(jax.nn.softplus(dt.astype(wide) + self.dt_bias), lengths)
    A = -jnp.maximum(A_ACTIVATIONS[self.A_activation](A.astype(wide)), self.A_floor)
    lam = jax.nn.sigmoid(lam.astype(wide))
    z, u = (value.reshape(*x.shape[:-1], heads, size) for value in (z, u))

    def by_head(value, norm, bias):
      value = norm(value.reshape(*x.shape[:-1], self.rank, self.groups, self.state))
      return jnp.repeat(value.astype(wide), heads // self.groups, axis=-2) + bias

    return Token(
      z=z,
      u=u.astype(wide),
      k=by_head(B, self.B_norm, self.B_bias),
      q=by_head(C, self.C_norm, self.C_bias),
      log_a=dt * A,
      now=lam * dt,
      carried=(1 - lam) * dt,
      angle=jnp.pi * jnp.tanh(angle.astype(wide))[..., None, :] * dt[..., None],
    )

  def _scan(
    self, token: Token, state: State, reset: Reset
  ) -> tuple[Float[Array, "b t r h p"], Float[Array, "b h k p"]]:
    """Returns S_t^T q_t of all tokens, and the last S.

    S without the last token is a recurrence of plain decay: each key enters it with the token after, which decides its
    second weight. What a token reads of itself is added. The ranks enter one after the other, as tokens that do not
    decay; a query does not see the ranks after its own there, so they are added too.
    """
    b, t, _ = token.now.shape
    shift = lambda z, first: jnp.concatenate([first[:, None].astype(z.dtype), z[:, :-1]], axis=1)
    weight = token.carried + jnp.pad(token.now[:, :-1], ((0, 0), (1, 0), (0, 0)))
    weight = jnp.exp(token.log_a) * (weight if reset is None else jnp.where(reset[..., None], 0, weight))
    k, v = shift(token.k, state.k), weight[:, :, None, :, None] * self._ranks(shift(token.u, state.u))

    flat = lambda z: z.reshape(b, t * self.rank, *z.shape[3:])
    first = lambda z: flat(jnp.pad(z[:, :, None], [(0, 0), (0, 0), (0, self.rank - 1)] + [(0, 0)] * (z.ndim - 2)))
    rank_reset = None if reset is None else first(reset)
    y, S = ssd(flat(token.q), flat(k), flat(v), first(token.log_a), state.S, reset=rank_reset)

    def read(k, v, which):
      scores = jnp.einsum("btihk,btjhk->btijh", token.q, k) * which[..., None]
      return jnp.einsum("btijh,btjhp->btihp", scores, v)

    own = token.now[:, :, None, :, None] * self._ranks(token.u)
    y = y.reshape(v.shape) + read(token.k, own, np.ones((self.rank, self.rank), bool))
    if self.rank > 1:
      y += read(k, v, ~np.tri(self.rank, dtype=bool))
    return y, S + token.now[:, -1, :, None, None] * self._outer(token.k[:, -1], token.u[:, -1])

  def _ranks(self, u: Float[Array, "*b h p"]) -> Float[Array, "*b r h p"]:
    return u[..., None, :, :] * self.mimo_u if self.rank > 1 else u[..., None, :, :]

  def _outer(self, k: Float[Array, "b r h k"], u: Float[Array, "b h p"]) -> Float[Array, "b h k p"]:
    return jnp.einsum("brhk,brhp->bhkp", k, self._ranks(u))

  def _gate(
    self, y: Float[Array, "*b r h p"], u: Float[Array, "*b h p"], z: Float[Array, "*b h p"], dtype: jnp.dtype
  ) -> Float[Array, "*b d"]:
    """Returns the layer's output, from y = S_t^T q_t."""
    y = y + self.D[:, None] * self._ranks(u)
    z = z.astype(y.dtype)[..., None, :, :]
    z = z * self.mimo_z if self.rank > 1 else z
    if self.out_norm:
      joined = lambda value: value.reshape(*value.shape[:-2], -1)
      y = self.gated_norm(joined(y), joined(z)).reshape(y.shape)
    else:
      y = y * jax.nn.silu(z)
    y = (y * self.mimo_o if self.rank > 1 else y).sum(-3)
    return self.out_proj(y.reshape(*y.shape[:-2], -1).astype(dtype))

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "expand", "head_size", "groups", "rank", "depth")
    inner, heads, size = self._sizes
    for field, value, of, parts in (
      ("head_size", size, "inner width", inner),
      ("groups", self.groups, "number of heads", heads),
    ):
      if parts % value:
        raise Mistake(f"Mamba3: {field}={value} does not divide the {of} {parts}")
    if not 0 < self.rope_fraction <= 1 or self._pairs < 1:
      rule = "it must be at most 1 and leave a pair"
      raise Mistake(f"Mamba3: rope_fraction={self.rope_fraction} of state={self.state} rows; {rule}")
    one_of(self, A_activation=A_ACTIVATIONS)
    if self.A_floor < 0:
      raise Mistake(f"Mamba3: A_floor={self.A_floor}; a state that grows is none, it needs at least 0")
    softplus_step(self.dt_min, self.dt_max)  # raises
