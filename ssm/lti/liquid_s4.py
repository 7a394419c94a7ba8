"""Liquid-S4: a diagonal state space whose output also reads products of neighbouring inputs. State: fixed.

Hasani, Lechner, Wang, Chahine, Amini & Rus 2022, arXiv:2209.12951. Theirs: H -> d, N -> state, L -> t, P -> degree.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int

from kernels.short_conv import short_conv
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.lengths import blank_past
from ssm.lti import diagonal, s4d


class State(NamedTuple):
  """What one layer remembers."""

  h: Complex[Array, "b e n"]  # complex64
  taps: Float[Array, "b w e"]  # the last degree - 1 inputs


class LiquidS4(nn.Module):
  """y_t = (S4D x)_t + sum_{p=2..degree} 2 Re(sum_n C_n Bbar_n^p) x_t x_{t-1} .. x_{t-p+1}     sec. 3, "PB"

  followed by GELU and a linear map to 2d with a gated linear unit: the state space x' = (A + B u) x + B u, of whose
  products of inputs those of neighbours are kept, and read without further decay.
  Departs: the causal form. The authors' code turns the correction around in time before adding it, so that a
  sequence's start hears of its end, and builds degree 3 as u_t u_{t-1}^2 u_{t-2}; here the products are the text's.
  Its "KB" kernel, in which products decay by Abar, is not offered. A is diagonal.

  Attributes:
    state: N, real numbers per channel: twice the conjugate pairs.
    degree: P, the most inputs in a product; 1 is S4D.
    A_init, disc, dt_min, dt_max, copies, activation: see `s4d.S4D`.
  Raises:
    ValueError: `degree` is below 1, `activation` is unknown; S4D refuses its arguments.
  """

  width: int
  state: int = 64
  degree: int = 2
  A_init: str = "legs"
  disc: str = "bilinear"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  copies: int | None = None
  activation: str = "glu"

  STATE = "fixed"
  SLOW = s4d.S4D.SLOW
  SIDE = ()

  def __post_init__(self):
    if self.degree < 1:
      raise ValueError(f"LiquidS4: degree={self.degree}; it must be at least 1")
    if self.activation not in ACTIVATIONS:
      raise ValueError(f"LiquidS4: activation={self.activation!r}; choose from {list(ACTIVATIONS)}")
    s4d.within(self, self.width, parent=None)  # raises
    super().__post_init__()

  def setup(self):
    self.ssm = s4d.within(self, self.width)
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Zeros."""
    h = s4d.within(self, self.width, parent=None).init_state(batch, max_len).h
    return State(h=h, taps=jnp.zeros((batch, self.degree - 1, self.width)))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state."""
    x = blank_past(x, lengths)
    taps = jnp.zeros((x.shape[0], self.degree - 1, self.width))
    liquid, _ = self._products(x, taps, reset=reset, lengths=lengths)
    return self._read(diagonal.outputs(x, self.ssm.recurrence(), reset=reset, lengths=lengths), liquid, lengths)

  def prefill(
    self,
    x: Float[Array, "b t d"],
    state: State,
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> tuple[Float[Array, "b t d"], State]:
    """All tokens from `state`."""
    x = blank_past(x, lengths)
    liquid, taps = self._products(x, state.taps, reset=reset, lengths=lengths)
    y, h = diagonal.resume(x, self.ssm.recurrence(), state.h, reset=reset, lengths=lengths)
    return self._read(y, liquid, lengths), State(h=h, taps=taps)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    liquid, taps = self._products(x[:, None], state.taps)
    y, h = diagonal.step(x, self.ssm.recurrence(), state.h)
    return self._read(y[:, None], liquid, None)[:, 0], State(h=h, taps=taps)

  def _products(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w d"], *, reset=None, lengths=None
  ) -> tuple[Float[Array, "b t d"], Float[Array, "b w d"]]:
    """The sum over p; and the taps. Inputs before the document are 0, and with them their products."""
    _, B, C, _ = self.ssm.recurrence()
    product = wide = x.astype(taps.dtype)
    total, power, last = jnp.zeros_like(product), B, taps
    for lag in range(1, self.degree):
      # a kernel of a single one shifts, within documents
      shift = jnp.zeros((self.degree, self.width), taps.dtype).at[self.degree - 1 - lag].set(1)
      shifted, last = short_conv(wide, shift, taps, reset=reset, lengths=lengths)
      product, power = product * shifted, power * B
      total = total + jnp.sum((C * power).real, axis=-1) * product
    return total, last

  def _read(self, y: Float[Array, "b t d"], liquid: Float[Array, "b t d"], lengths) -> Float[Array, "b t d"]:
    return blank_past(activate((y + liquid).astype(y.dtype), self.activation, self.out_proj), lengths)
