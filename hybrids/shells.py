"""The blocks that mixers have been put into, around any mixer: the architectures of the Mamba paper's ablation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hybrids import mixer as mixer_lib
from layers import Dense, ShortConv
from layers.choices import one_of
from layers.initializers import uniform_fan_in
from layers.lengths import blank_past
from mistake import Mistake

# kind -> how many parts the input is mapped to, and how wide the mixer inside is if that is not said
KINDS = {"none": (0, 1), "h3": (3, 1), "mamba": (2, 2)}


class State(NamedTuple):
  """What one shell remembers."""

  inner: Any  # of the mixer inside
  taps: Float[Array, "b w e"] | None  # the last inputs of the short convolution, if there is one


class Shell(nn.Module):
  """y = W_out f(x) around a mixer S inside     Gu & Dao 2023, arXiv:2312.00752, fig. 3 and tabs. 1 and 6

  "none", no gate, as in S4's layer: f = gelu(S(x)).
  "h3": f = q S(conv(k) v) with q, k, v = W_in x, of Dao et al. 2022, arXiv:2212.14052.
  "mamba": f = silu(z) S(silu(conv(u))) with u, z = W_in x.
  Departs: in H3 the convolution of k has a few taps, as in the ablation, instead of a shift state space.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is expand times ours.
    kind: "none", "h3" or "mamba".
    expand: 2 for "mamba" and 1 for others, if not given.
    taps: width of the short convolution.
  Raises:
    ValueError: `kind` is unknown, a size is below 1, "none" is to expand, or the mixer cannot be built.
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
    for field in ("width", "expand", "taps"):
      if getattr(self, field) is not None and getattr(self, field) < 1:
        raise Mistake(f"shell: {field}={getattr(self, field)}; it must be at least 1")
    if self.kind == "none" and self.expand not in (None, 1):
      raise Mistake(f"shell: expand={self.expand} with kind='none', which has no map in front of the mixer")
    super().__post_init__()
    self._inside(parent=None)

  @property
  def STATE(self) -> str:
    """The wrapped mixer's, and at least 'fixed' where there is a convolution."""
    states = [self._inside(parent=None).STATE, "fixed"]
    return max(states, key=mixer_lib.STATES.index)

  @property
  def SLOW(self) -> tuple[str, ...]:
    """The wrapped mixer's."""
    return self._inside(parent=None).SLOW

  @property
  def SIDE(self) -> tuple[str, ...]:
    """The wrapped mixer's."""
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
    """The wrapped mixer's, and zeros for the convolution."""
    return State(inner=self._inside(parent=None).init_state(batch, max_len), taps=self._no_taps(batch))

  def __call__(
    self,
    x: Float[Array, "b t d"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
    side: Mapping[str, Array] | None = None,
  ) -> Float[Array, "b t d"]:
    """All tokens from an empty state."""
    conv = lambda u: self.conv(u, self._no_taps(x.shape[0]), reset=reset, lengths=lengths)
    u, gate, _ = self._enter(blank_past(x, lengths), conv)
    return blank_past(self._leave(self.inner(u, reset=reset, lengths=lengths, side=side), gate), lengths)

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
    conv = lambda u: self.conv(u, state.taps, reset=reset, lengths=lengths)
    u, gate, taps = self._enter(blank_past(x, lengths), conv)
    y, inner = self.inner.prefill(u, state.inner, reset=reset, lengths=lengths, side=side)
    return blank_past(self._leave(y, gate), lengths), State(inner=inner, taps=taps)

  def step(
    self, x: Float[Array, "b d"], state: State, *, side: Mapping[str, Array] | None = None
  ) -> tuple[Float[Array, "b d"], State]:
    """One token."""
    u, gate, taps = self._enter(x, lambda u: self.conv.step(u, state.taps))
    y, inner = self.inner.step(u, state.inner, side=side)
    return self._leave(y, gate), State(inner=inner, taps=taps)

  @property
  def _inner(self) -> int:
    return (self.expand or KINDS[self.kind][1]) * self.width

  @nn.nowrap
  def _inside(self, **kwargs) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=self._inner, layer=self.layer, depth=self.depth, **kwargs)

  @nn.nowrap
  def _no_taps(self, batch: int) -> Float[Array, "b w e"] | None:
    return jnp.zeros((batch, self.taps - 1, self._inner)) if KINDS[self.kind][0] else None

  def _enter(self, x: Float[Array, "*b d"], conv: Any) -> tuple[Array, Array | None, Array | None]:
    """What the mixer inside reads, what its output is multiplied by, and the convolution's state."""
    if self.kind == "none":
      return x, None, None
    first, *rest = jnp.split(self.in_proj(x), KINDS[self.kind][0], axis=-1)
    first, taps = conv(first)
    if self.kind == "mamba":
      return jax.nn.silu(first), jax.nn.silu(rest[0]), taps
    v, q = rest
    return first * v, q, taps

  def _leave(self, y: Float[Array, "*b e"], gate: Float[Array, "*b e"] | None) -> Float[Array, "*b d"]:
    return self.out_proj(jax.nn.gelu(y) if gate is None else gate * y)
