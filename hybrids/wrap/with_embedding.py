"""A mixer that also reads the model's embedding of each token; its state is that of the mixer inside."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.branch import check_norm
from layers import Dense
from layers.mixer import Mixer, Where
from layers.norms import make_token_norm
from mistake import Mistake

EMBEDDING = "embedding"


class WithEmbedding(Mixer):
  """y = W S([x, e]) with a mixer S of twice the width and e the embedding     Glorioso et al. 2024, arXiv:2405.16712

  There is no W where S itself ends at the width, as Zamba's attention does: `softmax` with `out_features`. A model
  offers its embedding in `side`; where there is none, e is 0.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is twice ours.
    norm: of [x, e], by `name` and arguments; none if not given. Zamba has one, and none before the two are joined.
  Raises:
    ValueError: the mixer or the norm cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  norm: Mapping[str, Any] | None = None
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer, self.norm = mixer_lib.frozen(self.mixer), mixer_lib.frozen(self.norm)
    if self.norm is not None:
      check_norm(self.norm)
    super().__post_init__()
    if mixer_lib.offers(self._inside(parent=None)):
      raise Mistake(
        f"with_embedding: mixer {self.mixer['name']!r} offers arrays to later layers, "
        "which do not reach them from inside; use another mixer"
      )

  @property
  def STATE(self) -> str:
    """Returns the STATE of the wrapped mixer."""
    return self._inside(parent=None).STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """Returns the name of the embedding alone: other inputs per token do not fit a mixer of twice the width."""
    return (EMBEDDING,)

  def setup(self):
    self.inner = self._inside()
    self.narrows = getattr(self._inside(parent=None), "out_width", None) == self.width
    if not self.narrows:
      self.out_proj = Dense(self.width, axes=("inner", "embed"))
    if self.norm is not None:
      self.first_norm = make_token_norm(**self.norm, parent=None).copy(parent=self, name="norm")

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    if self.STATE == "none":
      raise Mistake(f"mixer {self.mixer['name']!r} reads the whole sequence at once: no state, prefill or step")
    return self._inside(parent=None).init_state(batch, max_len)

  def mix(self, x: Float[Array, "b t d"], state: Any, where: Where) -> tuple[Float[Array, "b t d"], Any]:
    y, state = self.inner.prefill(self._both(x, where.side), state, **where.masks)
    return self._out(y), state

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self._out(self.inner(self._both(x, where.side), **where.masks))

  def mix_token(self, x: Float[Array, "b d"], state: Any, side: Mapping[str, Array]) -> tuple[Float[Array, "b d"], Any]:
    y, state = self.inner.step(self._both(x, side), state)
    return self._out(y), state

  def _both(self, x: Float[Array, "*b d"], side: Mapping[str, Array]) -> Float[Array, "*b e"]:
    e = side[EMBEDDING].astype(x.dtype) if EMBEDDING in side else jnp.zeros_like(x)
    both = jnp.concatenate([x, e], axis=-1)
    return both if self.norm is None else self.first_norm(both)

  def _out(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    return y if self.narrows else self.out_proj(y)

  @nn.nowrap
  def _inside(self, **kwargs: Any) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=2 * self.width, layer=self.layer, depth=self.depth, **kwargs)
