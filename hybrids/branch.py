"""One layer of a stack: a residual branch around a mixer."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from kernels.inputs import Lengths, Reset
from layers import Dense, param
from layers.choices import one_of
from layers.mixer import Mixer, Where
from layers.norms import NORMS, BatchNorm, make_norm
from mistake import Mistake

POSITIONS = ("pre", "post", "sandwich", "output", "input", "none")
READS = ("x", "fed", "both")
# the input per token by which a stack hands on what the layer before feeds
FED = "fed"
# how a norm is called
Normalised: TypeAlias = Callable[[nn.Module, Array], Array]


def token_by_token(norm: nn.Module, x: Array) -> Array:
  """Returns x normalised by what the norm knows of each token alone, as in `prefill` and `step`."""
  return norm(x)


class Branch(Mixer):
  """skip · x + scale · mixer(input_scale · norm(x)), with one norm before the mixer, or elsewhere, by `norm_position`:

  "pre"       x + f(norm(x))
  "post"      norm(x + f(x)), Vaswani et al. 2017
  "sandwich"  x + norm_after(f(norm(x))), Gemma 2
  "output"    x + norm(f(x)), OLMo 2
  "input"     n + f(n) with n = norm(x), MiniMax-01
  "none"      x + f(x)

  Zamba's shared blocks (Glorioso et al. 2024, arXiv:2405.16712, eq. (6)) change what the next layer reads, not the sum:

  feeds             f(norm(x)) goes to the next layer of the stack alone
  reads "both"      x + f(norm(x + W z)), z being what the layer before feeds, and W a map of this branch
  reads "fed"       f(norm(z)), from a layer that feeds on

  Attributes:
    mixer: the mixer's `name` and arguments; its width is that of the branch.
    norm: the norm's `name` and arguments, for each norm that the branch has.
    skip, scale, input_scale: fixed factors, as muP, Granite and Falcon-H1 have them. skip=0 leaves the sum out.
    scaled: whether x and the output have a learned bias and scale by channel each, before they are added: (x + b) s +
      (f + c) r (Zaya).
    feeds: whether the output goes to the next layer alone, and x passes as it is.
    reads: "x", "both" or "fed", as above.
    dropout: share of the mixer's outputs that are dropped where a `dropout` rng is given.
    layer_drop: share of the rows that skip the branch where a `dropout` rng is given (stochastic depth, Huang et al.
      2016, arXiv:1603.09382).
    layer: which layer of the stack this is, counted from 0; with `depth`, for initialisers that want to know.
  Raises:
    ValueError: when made, if a name is unknown, a share out of range, or what is fed does not suit `norm_position` or
      `feeds`; when used, if the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  norm_position: str = "pre"
  skip: float = 1.0
  scale: float = 1.0
  input_scale: float = 1.0
  scaled: bool = False
  feeds: bool = False
  reads: str = "x"
  dropout: float = 0.0
  layer_drop: float = 0.0
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer, self.norm = mixer_lib.frozen(self.mixer), mixer_lib.frozen(self.norm)
    one_of(self, norm_position=POSITIONS, reads=READS)
    if (self.feeds or self.reads != "x") and self.norm_position in ("post", "input"):
      raise Mistake(f"norm_position={self.norm_position!r} with feeds={self.feeds}, reads={self.reads!r}; use 'pre'")
    if self.reads == "fed" and not self.feeds:
      raise Mistake("reads='fed' leaves x out, so the answer is no change to it; set feeds=True, or reads='both'")
    for name in ("dropout", "layer_drop"):
      if not 0 <= getattr(self, name) < 1:
        raise Mistake(f"{name}={getattr(self, name)}; it is the share that is dropped, from 0 to below 1")
    check_norm(self.norm)
    super().__post_init__()

  @property
  def STATE(self) -> str:
    """Returns the STATE of the wrapped mixer."""
    return self.bare(parent=None).STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the names of the inputs per token that the wrapped mixer reads, and what the layer before feeds."""
    return self.bare(parent=None).SIDE + ((FED,) if self.reads != "x" else ())

  @property
  def CARRIES(self) -> Mapping[str, int]:
    """Returns the names and widths of the arrays that the wrapped mixer takes from the layer before, and hands on."""
    return getattr(self.bare(parent=None), "CARRIES", {})

  def setup(self):
    if self.norm_position != "none":
      self.first_norm = make_norm(**self.norm, parent=None).copy(parent=self, name="norm")
    if self.norm_position == "sandwich":
      self.norm_after = make_norm(**self.norm)
    self.inner = self.bare(parent=None).copy(parent=self, name="mixer")
    self.drop = nn.Dropout(self.dropout)
    if self.scaled:
      vector = lambda name, init: param(self, name, init, (self.width,), ("embed",))
      zeros, ones = nn.initializers.zeros, nn.initializers.ones
      self.skip_bias, self.skip_scale = vector("skip_bias", zeros), vector("skip_scale", ones)
      self.output_bias, self.output_scale = vector("output_bias", zeros), vector("output_scale", ones)
    if self.reads == "both":
      self.fed_proj = Dense(self.width, axes=("inner", "embed"))

  @nn.nowrap
  def bare(self, **kwargs) -> nn.Module:
    """Builds the mixer alone; with `parent=None` it has no parameters, and answers only what needs none."""
    return mixer_lib.build_spec(self.mixer, width=self.width, layer=self.layer, depth=self.depth, **kwargs)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    """Returns the wrapped mixer's state before any token.

    Raises:
      ValueError: the mixer has none.
    """
    mixer = self.bare(parent=None)
    if mixer.STATE == "none":
      raise Mistake(f"mixer {self.mixer['name']!r} reads the whole sequence at once: no state, prefill or step")
    return mixer.init_state(batch, max_len)

  def mix(self, x: Float[Array, "b t d"], state: Any, where: Where) -> tuple[Float[Array, "b t d"], Any]:
    n, side = self._before(x, where.side)
    y, state = self.inner.prefill(self._scaled(n), state, **where.masks, side=side)
    return self._join(x, n, y), state

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    normalised = in_parallel(where.lengths)
    n, side = self._before(x, where.side, normalised)
    return self._join(x, n, self.inner(self._scaled(n), **where.masks, side=side), normalised)

  def mix_token(self, x: Float[Array, "b d"], state: Any, side: Mapping[str, Array]) -> tuple[Float[Array, "b d"], Any]:
    n, side = self._before(x, side)
    y, state = self.inner.step(self._scaled(n), state, side=side)
    return self._join(x, n, y), state

  def offer(
    self, x: Float[Array, "b t d"], state: Any, *, reset: Reset = None, lengths: Lengths = None
  ) -> Mapping[str, Array]:
    """Returns the arrays per token that the mixer offers to the layers after it."""
    return self.inner.offer(self._scaled(self._before(x, {})[0]), state, reset=reset, lengths=lengths)

  def _before(
    self, x: Float[Array, "*b d"], side: Mapping[str, Array], normalised: Normalised = token_by_token
  ) -> tuple[Float[Array, "*b d"], Mapping[str, Array]]:
    """Returns the input of the mixer, before it is scaled, and its inputs per token."""
    if self.reads != "x":
      fed = side.get(FED, jnp.zeros_like(x))
      side = {name: value for name, value in side.items() if name != FED}
      x = fed if self.reads == "fed" else x + self.fed_proj(fed)
    return (normalised(self.first_norm, x) if self.norm_position in ("pre", "sandwich", "input") else x), side

  @nn.nowrap
  def _scaled(self, n: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    return n if self.input_scale == 1 else n * self.input_scale

  def _join(
    self,
    x: Float[Array, "*b d"],
    n: Float[Array, "*b d"],
    y: Float[Array, "*b d"],
    normalised: Normalised = token_by_token,
  ) -> Float[Array, "*b d"]:
    """Adds the branch's input, x or its norm n, to the output y of its mixer."""
    got, wanted = (y.dtype, y.shape), (x.dtype, x.shape)
    if got != wanted:
      raise Mistake(
        f"mixer {self.mixer['name']!r} returned {got} for {wanted}; a layer of a stack keeps both, a body need not"
      )
    if self.norm_position in ("sandwich", "output"):
      y = normalised(self.norm_after if self.norm_position == "sandwich" else self.first_norm, y)
    y = self._survivors(self.drop(y, deterministic=not self.has_rng("dropout")))
    y = y if self.scale == 1 else y * self.scale
    if self.scaled:
      y = (y + self.output_bias.astype(y.dtype)) * self.output_scale.astype(y.dtype)
    if self.skip and not self.feeds:
      kept = n if self.norm_position == "input" else x
      if self.scaled:
        kept = (kept + self.skip_bias.astype(x.dtype)) * self.skip_scale.astype(x.dtype)
      y = (kept if self.skip == 1 else kept * self.skip) + y
    y = normalised(self.first_norm, y) if self.norm_position == "post" else y
    return nn.with_logical_constraint(y, ("batch", "time", "embed")[:: 1 if y.ndim == 3 else 2])

  def _survivors(self, y: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """Drops whole rows of y, and scales the others up by the inverse of the share that stays."""
    if not self.layer_drop or not self.has_rng("dropout"):
      return y
    alive = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.layer_drop, (len(y), *[1] * (y.ndim - 1)))
    return jnp.where(alive, y / (1 - self.layer_drop), 0)


def in_parallel(lengths: Lengths) -> Normalised:
  """Returns how norms are called on whole sequences: those of a batch may learn its statistics."""
  return lambda norm, x: norm.of_batch(x, lengths) if isinstance(norm, BatchNorm) else norm(x)


def fields(letter: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of a letter's branch: a mixer's section alone (with a `name`) is the field `mixer`."""
  return {"mixer": letter} if "name" in letter else dict(letter)


def check_norm(section: Mapping[str, Any]) -> None:
  """Checks a norm's section: its `name` and arguments.

  Raises:
    ValueError: there is no such norm, or no such field.
  """
  if section.get("name") not in NORMS:
    raise Mistake(f"no norm {section.get('name')!r}; choose from {sorted(NORMS)}")
  mixer_lib.check_fields(
    NORMS[section["name"]], {key: section[key] for key in section if key != "name"}, f"norm {section['name']!r}"
  )
