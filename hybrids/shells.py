"""The blocks that published mixers stand in, usable around any mixer, as in the Mamba paper's ablation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from layers import Dense, ShortConv
from layers.activations import gelu_tanh
from layers.choices import one_of
from layers.initializers import uniform_fan_in
from layers.mixer import Mixer, Where
from layers.sizes import at_least_one
from mistake import Mistake

# kind -> number of parts that the input is mapped to, and the default of expand
KINDS = {"none": (0, 1), "h3": (3, 1), "mamba": (2, 2)}


class State(NamedTuple):
  """The state of one shell."""

  inner: Any  # the state of the mixer inside
  taps: Float[Array, "b w e"] | None  # the last inputs of the short convolution, if there is one


class Shell(Mixer):
  """y = W_out f(x) around a mixer S inside     Gu & Dao 2023, arXiv:2312.00752, fig. 3 and tabs. 1 and 6

  "none", no gate, as in S4's layer: f = gelu(S(x)).
  "h3": f = q S(conv(k) v) with q, k, v = W_in x, of Fu et al. 2022, arXiv:2212.14052.
  "mamba": f = silu(z) S(silu(conv(u))) with u, z = W_in x.
  Departs: in H3 the convolution of k has a few taps, as in the ablation, instead of a shift state space.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is `expand` times the width.
    kind: "none", "h3" or "mamba".
    expand: 2 for "mamba" and 1 for others, if not given.
    taps: width of the short convolution.
  Raises:
    ValueError: `kind` is unknown, a size is below 1, "none" has an `expand` above 1, or the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  kind: str = "mamba"
  expand: int | None = None
  taps: int = 4
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    one_of(self, kind=KINDS)
    at_least_one(self, "width", "expand", "taps")
    if self.kind == "none" and self.expand not in (None, 1):
      raise Mistake(f"Shell: expand={self.expand} with kind='none', which has no map in front of the mixer")
    super().__post_init__()
    self._inside(parent=None)

  @property
  def STATE(self) -> str:
    """Returns how the state of the mixer inside grows."""
    return self._inside(parent=None).STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the side inputs of the mixer inside."""
    return self._inside(parent=None).SIDE

  def setup(self):
    parts = KINDS[self.kind][0]
    dense = lambda features, fan_in, axes: Dense(features, kernel_init=uniform_fan_in(fan_in), axes=axes)
    if parts:
      self.in_proj = dense(parts * self._inner, self.width, ("embed", "inner"))
      self.conv = ShortConv(self._inner, taps=self.taps)
    self.inner = self._inside()
    self.out_proj = dense(self.width, self._inner, ("inner", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    return State(inner=self._inside(parent=None).init_state(batch, max_len), taps=self._no_taps(batch))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    conv = lambda u: self.conv(u, self._no_taps(x.shape[0]), **where.masks)
    u, gate, _ = self._split(x, conv)
    return self._output(self.inner(u, **where.masks, side=where.side), gate)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    u, gate, taps = self._split(x, lambda u: self.conv(u, state.taps, **where.masks))
    y, inner = self.inner.prefill(u, state.inner, **where.masks, side=where.side)
    return self._output(y, gate), State(inner=inner, taps=taps)

  def mix_token(
    self, x: Float[Array, "b d"], state: State, side: Mapping[str, Array]
  ) -> tuple[Float[Array, "b d"], State]:
    u, gate, taps = self._split(x, lambda u: self.conv.step(u, state.taps))
    y, inner = self.inner.step(u, state.inner, side=side)
    return self._output(y, gate), State(inner=inner, taps=taps)

  @property
  def _inner(self) -> int:
    return (self.expand or KINDS[self.kind][1]) * self.width

  @nn.nowrap
  def _inside(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self._inner, layer=self.layer, depth=self.depth, **kwargs)

  @nn.nowrap
  def _no_taps(self, batch: int) -> Float[Array, "b w e"] | None:
    return jnp.zeros((batch, self.taps - 1, self._inner)) if KINDS[self.kind][0] else None

  def _split(self, x: Float[Array, "*b d"], conv: Any) -> tuple[Array, Array | None, Array | None]:
    """Returns the input of the mixer inside, the factor of its output, and the next state of the convolution."""
    if self.kind == "none":
      return x, None, None
    first, *rest = jnp.split(self.in_proj(x), KINDS[self.kind][0], axis=-1)
    first, taps = conv(first)
    if self.kind == "mamba":
      return jax.nn.silu(first), jax.nn.silu(rest[0]), taps
    v, q = rest
    return first * v, q, taps

  def _output(self, y: Float[Array, "*b e"], gate: Float[Array, "*b e"] | None) -> Float[Array, "*b d"]:
    return self.out_proj(gelu_tanh(y) if gate is None else gate * y)
