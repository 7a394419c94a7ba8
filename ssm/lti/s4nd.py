"""S4ND for images: a convolution over both sides, whose kernel is an outer product of state spaces. State: none.

Nguyen et al. 2022, arXiv:2210.06583. Theirs: H -> d, N -> state, L1, L2 -> rows, columns, Delta -> dt, trank -> rank.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from layers import images, param
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.lengths import blank_past
from ssm.lti import diagonal, discretization
from ssm.lti.s4d import INITS

AXES = ("row", "column")


class S4ND(nn.Module):
  """y = (K_1 x K_2) * x + D x for each channel, K_1 along a column and K_2 along a row of the image     sec. 3

  each made of the kernels of two diagonal state spaces, one for lags from 0 on and one for lags from -1 backwards. With
  a rank above 1, K is the mean of so many such products. What follows is S4D's: GELU and a gated linear map to 2d. Both
  axes have an A, B and dt of their own. Departs: the state spaces are S4D's, where the paper has S4's or S4D's.

  Attributes:
    state, A_init, disc, dt_min, dt_max, activation: as in S4D.
    rank: of the matrix that the kernel is.
    bidirectional: whether a pixel sees those to its right and below.
    rows, columns: the image's, whose pixels come row by row; the two factors of the sequence's length nearest to each
      other if not given.
    bandlimit: modes that turn by more than this share of half a turn a step have no output; about 0.5 where
      `step_rescale` is to change afterwards.
    step_rescale: factor on all time steps, for images sampled more coarsely than those trained on.
  Raises:
    ValueError: `state` is odd, a size is below 1, a name is unknown, or not 0 < dt_min <= dt_max; when called, `rows`
      and `columns` do not make the sequence's length.
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  disc: str = "zoh"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  rank: int = 1
  bidirectional: bool = True
  rows: int | None = None
  columns: int | None = None
  bandlimit: float | None = None
  step_rescale: float = 1.0
  activation: str = "glu"

  STATE = "none"
  SLOW = tuple(f"{axis}_{name}" for axis in AXES for name in ("A_log", "A_im", "B_re", "B_im", "log_dt"))
  SIDE = ()

  def __post_init__(self):
    _check(self)
    super().__post_init__()

  def setup(self):
    n, ways = self.state // 2, 2 if self.bidirectional else 1
    A, B = INITS[self.A_init](n)
    space, half_normal = ("inner", "state"), nn.initializers.normal(0.5**0.5)
    make = lambda name, init, shape, axes: {a: param(self, f"{a}_{name}", init, shape, axes) for a in AXES}
    self.A_log = make("A_log", constant(np.log(-A.real)), (self.width, n), space)
    self.A_im = make("A_im", constant(A.imag), (self.width, n), space)
    self.B_re = make("B_re", constant(B.real), (self.width, n), space)
    self.B_im = make("B_im", constant(B.imag), (self.width, n), space)
    self.C_re = make("C_re", half_normal, (self.rank, ways, self.width, n), (None, None, *space))
    self.C_im = make("C_im", half_normal, (self.rank, ways, self.width, n), (None, None, *space))
    self.log_dt = make("log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",))
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All pixels."""
    rows, columns = images.sides("S4ND", x.shape[1], self.rows, self.columns)
    origin = (rows - 1, columns - 1) if self.bidirectional else (0, 0)
    down, right = self._taps("row", rows), self._taps("column", columns)
    K = jnp.einsum("rei,rej->eij", down, right) / self.rank
    K = K.at[:, origin[0], origin[1]].add(self.D)
    y = images.convolve(x, K, origin=origin, columns=columns, reset=reset, lengths=lengths)
    return blank_past(activate(y, self.activation, self.out_proj), lengths)

  def _taps(self, axis: str, l: int) -> Float[Array, "r e m"]:
    """A kernel of one axis for each rank: lags from 1 - l to l - 1, or from 0 on."""
    A = jax.lax.complex(-jnp.exp(self.A_log[axis]), self.A_im[axis])
    dt = self.step_rescale * jnp.exp(self.log_dt[axis])[:, None]
    log_A, scale = discretization.RULES[self.disc](dt, A)
    CB = 2 * jax.lax.complex(self.C_re[axis], self.C_im[axis])
    CB = CB * scale * jax.lax.complex(self.B_re[axis], self.B_im[axis])
    if self.bandlimit is not None:
      CB = jnp.where(dt * jnp.abs(A.imag) <= self.bandlimit * math.pi, CB, 0)
    kernels, modes = CB.shape[:-1], CB.shape[-1]
    log_A = jnp.broadcast_to(log_A, CB.shape).reshape(-1, modes)
    K = diagonal.taps(log_A, CB.reshape(-1, modes), jnp.zeros(log_A.shape[0]), l).reshape(*kernels, l)
    if not self.bidirectional:
      return K[:, 0]
    return jnp.concatenate([K[:, 1, :, : l - 1][..., ::-1], K[:, 0]], axis=-1)


def _check(module: S4ND) -> None:
  if module.state < 2 or module.state % 2:
    raise ValueError(f"S4ND: state={module.state}; conjugate pairs are stored once, so it must be even")
  for field in ("width", "rank", "rows", "columns"):
    if getattr(module, field) is not None and getattr(module, field) < 1:
      raise ValueError(f"S4ND: {field}={getattr(module, field)}; it must be at least 1")
  for field, choices in (("A_init", INITS), ("disc", discretization.RULES), ("activation", ACTIVATIONS)):
    if getattr(module, field) not in choices:
      raise ValueError(f"S4ND: {field}={getattr(module, field)!r}; choose from {list(choices)}")
  log_step(module.dt_min, module.dt_max)  # raises
