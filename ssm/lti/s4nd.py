"""S4ND: a convolution over all sides of an image or a video, its kernel an outer product of state spaces. State: none.

Nguyen et al. 2022, arXiv:2210.06583. Theirs: H -> d, N -> state, L1, L2 -> rows, columns, Delta -> dt, trank -> rank.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from layers import images, param
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from layers.sizes import above_zero, at_least_one
from mistake import Mistake
from ssm.lti import diagonal, discretization, dplr, hippo, s4, s4d

AXES = ("frame", "row", "column")
STRUCTURES = {"diagonal": tuple(s4d.INITS), "dplr": s4.MEASURES}


class S4ND(Mixer):
  """y = (K_1 x K_2) * x + D x for each channel, K_1 along a column and K_2 along a row of the image     sec. 3

  each made of the kernels of two state spaces, one for lags from 0 on and one for lags from -1 backwards; a video has a
  third, over its frames. With a rank above 1, K is the mean of so many such products. What follows is S4D's: GELU and a
  gated linear map to 2d. Every axis has an A, B and dt of its own, which its kernels share. Departs: nothing.

  Attributes:
    state, A_init, disc, dt_min, dt_max, activation: as in S4D.
    structure: of A: "diagonal" (S4D), or "dplr", diagonal plus low rank (S4): then A_init is "legs" or "fout", and the
      rule is Tustin's, whatever `disc`.
    dim: axes: 2, an image, or 3, a video, whose pixels come frame by frame.
    rank: of the tensor that the kernel is.
    bidirectional: whether a pixel sees those to its right and below.
    frames, rows, columns: the sides, the first of a video alone. Pixels come row by row. The factors of the sequence's
      length nearest to each other if not given.
    bandlimit: modes that turn by more than this share of half a turn a step have no output; about 0.5 where
      `step_rescale` is to change afterwards.
    step_rescale: factor on all time steps, for images sampled more coarsely than those trained on.
  Raises:
    ValueError: when called, the sides do not make the sequence's length.
  """

  width: int
  state: int = 64
  A_init: str = "legs"
  structure: str = "diagonal"
  dim: int = 2
  disc: str = "zoh"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  rank: int = 1
  bidirectional: bool = True
  frames: int | None = None
  rows: int | None = None
  columns: int | None = None
  bandlimit: float | None = None
  step_rescale: float = 1.0
  activation: str = "glu"

  STATE = "none"

  def setup(self):
    n, ways = self.state // 2, 2 if self.bidirectional else 1
    space, half_normal = ("inner", "state"), nn.initializers.normal(0.5**0.5)
    make = lambda name, init, shape, axes, slow: {
      axis: param(self, f"{axis}_{name}", init, shape, axes, slow=slow) for axis in AXES[-self.dim :]
    }
    same = lambda name, value: make(name, constant(value), (self.width, n), space, True)
    if self.structure == "dplr":
      A, P, B = hippo.dplr(self.A_init, self.state)
      B = B.real + 1j * np.clip(B.imag, -2, 2)
      self.P_re, self.P_im = same("P_re", P[0].real), same("P_im", P[0].imag)
    else:
      A, B = s4d.INITS[self.A_init](n)
    self.A_log, self.A_im = same("A_log", np.log(np.maximum(-A.real, 1e-4))), same("A_im", A.imag)
    self.B_re, self.B_im = same("B_re", B.real), same("B_im", B.imag)
    C = lambda name: make(name, half_normal, (self.rank, ways, self.width, n), (None, None, *space), False)
    self.C_re, self.C_im = C("C_re"), C("C_im")
    self.log_dt = make("log_dt", log_step(self.dt_min, self.dt_max), (self.width,), ("inner",), True)
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("inner",))
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    axes = AXES[-self.dim :]
    sizes = images.sides("S4ND", x.shape[1], {f"{axis}s": getattr(self, f"{axis}s") for axis in axes})
    origin = tuple(size - 1 if self.bidirectional else 0 for size in sizes)
    taps = [self._taps(axis, size) for axis, size in zip(axes, sizes)]
    equation = {2: "rei,rej->eij", 3: "rei,rej,rek->eijk"}[self.dim]
    K = jnp.einsum(equation, *taps) / self.rank
    K = K.at[(slice(None), *origin)].add(self.D)
    y = images.convolve(x, K, origin=origin, inner=sizes[1:], **where.masks)
    return activate(y, self.activation, self.out_proj)

  def _taps(self, axis: str, l: int) -> Float[Array, "r e m"]:
    """Returns the kernels along one axis, one for each rank, for lags from 1 - l to l - 1, or from 0 on."""
    A = jax.lax.complex(-jnp.exp(self.A_log[axis]), self.A_im[axis])
    B, C = (jax.lax.complex(re[axis], im[axis]) for re, im in ((self.B_re, self.B_im), (self.C_re, self.C_im)))
    dt = self.step_rescale * jnp.exp(self.log_dt[axis])[:, None]
    if self.bandlimit is not None:
      C = jnp.where(dt * jnp.abs(A.imag) <= self.bandlimit * math.pi, C, 0)
    kernels = C.shape[:-1]
    C = C.reshape(-1, *C.shape[-2:])
    if self.structure == "dplr":
      P = jax.lax.complex(self.P_re[axis], self.P_im[axis])
      K = jax.vmap(lambda C: dplr.taps(dt[:, 0], A, P, B, C, l))(C)
    else:
      log_A, scale = discretization.RULES[self.disc](dt, A)
      none = jnp.zeros(self.width)
      K = jax.vmap(lambda C: diagonal.taps(log_A, 2 * C * scale * B, none, l))(C)
    K = K.reshape(*kernels, l)
    if not self.bidirectional:
      return K[:, 0]
    return jnp.concatenate([K[:, 1, :, : l - 1][..., ::-1], K[:, 0]], axis=-1)

  @nn.nowrap
  def check(self) -> None:
    if self.state < 2 or self.state % 2:
      raise Mistake(f"S4ND: state={self.state}; conjugate pairs are stored once, so it must be even")
    at_least_one(self, "width", "rank", "frames", "rows", "columns")
    one_of(self, dim=(2, 3), structure=STRUCTURES, disc=discretization.RULES, activation=ACTIVATIONS)
    if self.A_init not in STRUCTURES[self.structure]:
      inits = list(STRUCTURES[self.structure])
      raise Mistake(f"S4ND: A_init={self.A_init!r}; choose from {inits} for structure={self.structure!r}")
    if self.frames is not None and self.dim != 3:
      raise Mistake(f"S4ND: frames={self.frames}, but dim={self.dim} is an image; set dim=3")
    above_zero(self, "bandlimit", "step_rescale")
    log_step(self.dt_min, self.dt_max)  # raises
