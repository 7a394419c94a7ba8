"""2-D SSM: a state space with two time axes, the rows and the columns of an image. State: none.

Baron, Zimerman & Wolf 2023, arXiv:2306.06635. Theirs: H -> d, N -> state, L -> rows, columns, n_ssm -> copies.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from kernels.roesser import roesser
from layers import images, param
from layers.choices import one_of
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake

# axes (1: rows, 2: columns) that each direction turns around
DIRECTIONS: dict[int, tuple[tuple[int, ...], ...]] = {1: ((),), 2: ((), (1, 2)), 4: ((), (1,), (2,), (1, 2))}
NUMBERS = ("real", "complex")


class SSM2D(Mixer):
  """h_i,j = A_1 h_i,j-1 + A_2 v_i,j-1 + B_1 x_ij,  v_i,j = A_3 h_i-1,j + A_4 v_i-1,j + B_2 x_ij     sec. 3

  y_ij = (C_1 h_ij + C_2 v_ij)/sqrt(N) + D x_ij for each channel, with diagonal A below 1 in size; computed as a
  convolution with the impulse response, and summed over the directions in which the image is read. Channels stay apart.
  Departs: nothing from the authors' code, in whose impulse response sums of two terms are means off the edges
  (`inside`). As printed, the equation grows exponentially along diagonals unless the A are small.

  Attributes:
    state: N, pairs of numbers per channel and direction.
    directions: 4, from every corner; 2, from the first and the last pixel; 1, from the first.
    numbers: "real" or "complex" A, B and C; of complex y the real part is taken.
    copies: how many independent systems there are in each direction, shared in turn by the channels; the width if not
      given.
    inside: factor on h and v off the first row and column of the impulse response; 1 is the printed equation.
    rows, columns: the image's, whose pixels come row by row; the two factors of the sequence's length nearest to each
      other if not given.
  Raises:
    ValueError: when called, `rows` and `columns` do not make the sequence's length.
  """

  width: int
  state: int = 16
  directions: int = 4
  numbers: str = "real"
  copies: int | None = None
  inside: float = 0.5
  rows: int | None = None
  columns: int | None = None

  STATE = "none"

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "state", "copies", "rows", "columns")
    if self.copies is not None and self.width % self.copies:
      raise Mistake(f"SSM2D: copies={self.copies} does not divide width={self.width}")
    one_of(self, directions=DIRECTIONS, numbers=NUMBERS)

  def setup(self):
    copies = self.copies or self.width
    real = self.numbers == "real"
    normal, parts = nn.initializers.normal, () if real else (2,)
    share = "inner" if copies == self.width else None
    axes = (None, None, share, "state")
    shape = lambda k, parts: (k, self.directions, copies, self.state, *parts)
    make = lambda name, init, k, parts, slow=True: param(
      self, name, init, shape(k, parts), axes + (None,) * len(parts), slow=slow
    )
    spread = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, 0.5, 3.0)
    self.A_size = make("A_size", normal(0.2) if real else spread, 4, ())
    if not real:
      self.A_angle = make("A_angle", spread, 4, ())
    self.B = make("B", normal(0.2), 2, parts)
    self.C = make("C", normal(1.0), 2, parts, slow=False)
    self.D = param(self, "D", normal(1.0), (self.width,), ("inner",))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    rows, columns = images.sides("SSM2D", x.shape[1], dict(rows=self.rows, columns=self.columns))
    K = self._kernel(rows, columns)
    return images.convolve(x, K, origin=(rows - 1, columns - 1), inner=(columns,), **where.masks)

  def _kernel(self, rows: int, columns: int) -> Float[Array, "d i j"]:
    """Returns taps for lags from 1 - rows and 1 - columns on: the sum of the turned impulse responses."""
    A, B, C = self._system()
    flat = lambda z: z.reshape(z.shape[0], -1, self.state)
    K = roesser(flat(A), flat(B), flat(C) * self.state**-0.5, rows, columns, inside=self.inside)
    K = jnp.pad(K.reshape(*A.shape[1:3], rows, columns), ((0, 0), (0, 0), (rows - 1, 0), (columns - 1, 0)))
    K = sum((jnp.flip(k, axes) for k, axes in zip(K, DIRECTIONS[self.directions])), start=jnp.zeros_like(K[0]))
    K = jnp.tile(K, (self.width // K.shape[0], 1, 1))
    return K.at[:, rows - 1, columns - 1].add(self.D)

  def _system(self) -> tuple[Inexact[Array, "k o e n"], ...]:
    """Returns the matrices A_1 to A_4, B_1 and B_2, and C_1 and C_2, each kind stacked."""
    size, B = jax.nn.sigmoid(self.A_size), jax.nn.sigmoid(self.B)
    if self.numbers == "real":
      return size, B, self.C
    angle = 2 * math.pi * jax.nn.sigmoid(self.A_angle)
    A = jax.lax.complex(size * jnp.cos(angle), size * jnp.sin(angle))
    return A, jax.lax.complex(B[..., 0], B[..., 1]), jax.lax.complex(self.C[..., 0], self.C[..., 1])
