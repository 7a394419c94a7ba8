"""Liquid-S4: a diagonal state space that also reads products of neighbouring inputs.

State: fixed (none in the official form).

Hasani, Lechner, Wang, Chahine, Amini & Rus 2022, arXiv:2209.12951. Theirs: H -> d, N -> state, L -> t, P -> degree.
"""

import functools
import itertools
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels.short_conv import short_conv
from layers.choices import one_of
from layers.glu import ACTIVATIONS, activate, glu_dense
from layers.mixer import Mixer, Where
from mistake import Mistake
from ssm.lti import chunks, diagonal, s4d

KERNELS = ("pb", "kb")
FORMS = ("causal", "official")


class State(NamedTuple):
  h: Complex[Array, "b e n"]  # complex64
  taps: Float[Array, "b w e"]  # the last degree - 1 inputs


class LiquidS4(Mixer):
  """y_t = (S4D x)_t + sum_{p=2..degree} sum_{s<=t} 2 Re(sum_n C_n Abar_n^{t-s} Bbar_n^p) x_s x_{s-1} .. x_{s-p+1}

  followed by GELU and a linear map to 2d with a gated linear unit: the state space x' = (A + B u) x + B u, of whose
  products of inputs those of neighbours are kept (sec. 3). That is the kernel "kb", where products drive the state;
  with "pb" only s = t is read, which leaves the powers of Abar out.
  Departs: the causal form; A is diagonal. The authors' code, which made the published results, is the form "official":
  there the product at place i of a sequence is one of p inputs as far from its end as the numbers of the i-th of all
  sets of p distances, sets being counted by their largest number, then by the next; and Bbar_n^p is
  Bbar_n S^(2^(p-1) - 1) with S the sum of Bbar over all states, conjugates included. That reads the future, and has no
  state. Their "kb" multiplies spectra of two different lengths, which is no convolution, and is left out. Their
  corrections read tensors that are no parameters, and so are not trained; ours read the parameters.
  On a CPU a convolution without a state may be one FFT, of more than 128 states or without a compiler, whose rounding
  reaches earlier outputs: see `ssm.lti.diagonal.outputs` and `kernels.long_conv`.

  Attributes:
    state: N, real numbers per channel: twice the conjugate pairs.
    degree: P, the most inputs in a product; 1 is S4D.
    kernel: "pb" or "kb".
    form: "causal" or "official".
    A_init, disc, dt_min, dt_max, copies, activation: see `s4d.S4D`.
  """

  width: int
  state: int = 64
  degree: int = 2
  kernel: str = "pb"
  form: str = "causal"
  A_init: str = "legs"
  disc: str = "bilinear"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  copies: int | None = None
  activation: str = "glu"

  @property
  def STATE(self) -> str:
    """Is fixed; none in the official form."""
    return "none" if self.form == "official" else "fixed"

  @nn.nowrap
  def check(self) -> None:
    if self.degree < 1:
      raise Mistake(f"LiquidS4: degree={self.degree}; it must be at least 1")
    one_of(self, kernel=KERNELS, form=FORMS, activation=ACTIVATIONS)
    if self.kernel == "kb" and self.form == "official":
      raise Mistake("LiquidS4: kernel='kb' has no form='official'; use form='causal', or kernel='pb'")
    s4d.within(self, self.width, parent=None)  # raises

  def setup(self):
    self.ssm = s4d.within(self, self.width)
    self.out_proj = glu_dense(self.width) if self.activation == "glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    self._require_state()
    h = s4d.within(self, self.width, parent=None).init_state(batch, max_len).h
    return State(h=h, taps=jnp.zeros((batch, self.degree - 1, self.width)))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    run, recurrences = functools.partial(diagonal.outputs, **where.masks), self._recurrences()
    if self.form == "official":
      wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
      products = [_official_product(wide, p, where) for p in range(2, self.degree + 1)]
    else:
      products, _ = self._products(x, jnp.zeros((x.shape[0], self.degree - 1, self.width)), where)
    if self.kernel == "kb":
      liquid = [run(product, one) for product, one in zip(products, recurrences)]
    else:
      liquid = [diagonal.at_once(one) * product for product, one in zip(products, recurrences)]
    return self._read(run(x, self.ssm.recurrence()), liquid)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    """Adds up what all degrees put into the one state that serves them."""
    run = functools.partial(diagonal.resume, **where.masks)
    products, taps = self._products(x, state.taps, where)
    y, h = run(x, self.ssm.recurrence(), state.h)
    liquid = []
    for product, recurrence in zip(products, self._recurrences()):
      if self.kernel == "kb":
        part, driven = run(product, recurrence, jnp.zeros_like(h))
        h = h + driven
      else:
        part = diagonal.at_once(recurrence) * product
      liquid.append(part)
    return self._read(y, liquid), State(h=h, taps=taps)

  @nn.nowrap
  def no_state(self) -> str:
    return "form='official' sees later tokens, so it has no state; call it, or use form='causal'"

  def _recurrences(self) -> list[diagonal.Recurrence]:
    """Returns the recurrences that the products of two inputs drive, of three inputs, and so on."""
    first = self.ssm.recurrence()
    if self.form == "official":
      S = jnp.sum(2 * first.B.real, axis=1, keepdims=True)
      powers = [first.B * S ** (2 ** (p - 1) - 1) for p in range(2, self.degree + 1)]
    else:
      powers = [first.B**p for p in range(2, self.degree + 1)]
    return [first._replace(B=power, D=jnp.zeros_like(first.D)) for power in powers]

  def _products(
    self, x: Float[Array, "b t d"], taps: Float[Array, "b w d"], where: Where
  ) -> tuple[list[Float[Array, "b t d"]], Float[Array, "b w d"]]:
    """Returns products of two neighbouring inputs, of three, and so on, 0 before the document; and the next taps."""
    product = wide = x.astype(taps.dtype)
    products, last = [], taps
    for lag in range(1, self.degree):
      # a kernel of a single one shifts, within documents
      shift = jnp.zeros((self.degree, self.width), taps.dtype).at[self.degree - 1 - lag].set(1)
      shifted, last = short_conv(wide, shift, taps, **where.masks)
      product = product * shifted
      products.append(product)
    return products, last

  def _read(self, y: Float[Array, "b t d"], liquid: list[Float[Array, "b t d"]]) -> Float[Array, "b t d"]:
    return activate(sum(liquid, y).astype(y.dtype), self.activation, self.out_proj)


def _official_product(x: Float[Array, "b t d"], p: int, where: Where) -> Float[Array, "b t d"]:
  """Returns at token i of each document the product of the i-th p of its inputs; 0 beyond the number of sets."""
  t = x.shape[1]
  count = next(n for n in itertools.count(p) if math.comb(n, p) >= t)
  sets = sorted(itertools.combinations(range(count), p), key=lambda distances: distances[::-1])[:t]
  places, _ = chunks.places(jnp.zeros(x.shape[:1], jnp.int32), t, None, **where.masks)
  distance, length = jnp.asarray(sets)[places.slot], chunks.sizes(places)[..., None]
  index = (jnp.arange(t) - places.slot)[..., None] + length - 1 - distance
  factors = [jnp.take_along_axis(x, index[..., j, None], axis=1, mode="clip") for j in range(p)]
  inside = jnp.max(distance, axis=-1) < length[..., 0]
  return jnp.where(inside[..., None], math.prod(factors), 0)
