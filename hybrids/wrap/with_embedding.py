"""A mixer that also reads the model's embedding of each token; its state is that of the mixer inside."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from layers import Dense
from layers.mixer import Mixer, Where
from mistake import Mistake

EMBEDDING = "embedding"


class WithEmbedding(Mixer):
  """y = W S([x, e]) with a mixer S of twice the width and e the embedding     Glorioso et al. 2024, arXiv:2405.16712

  A model offers its embedding in `side`; where there is none, e is 0. Zamba's S is attention and an MLP, a `stack`.

  Attributes:
    mixer: the wrapped mixer's `name` and arguments; its width is twice ours.
  Raises:
    ValueError: the mixer cannot be built.
  """

  width: int
  mixer: Mapping[str, Any]
  layer: int = 0
  depth: int = 1

  def __post_init__(self):
    self.mixer = mixer_lib.frozen(self.mixer)
    super().__post_init__()
    self._inside(parent=None)

  @property
  def STATE(self) -> str:
    """The STATE of the wrapped mixer."""
    return self._inside(parent=None).STATE

  @property
  def SIDE(self) -> tuple[str, ...]:
    """The name of the embedding alone: other inputs per token do not fit a mixer of twice the width."""
    return (EMBEDDING,)

  def setup(self):
    self.inner = self._inside()
    self.out_proj = Dense(self.width, axes=("inner", "embed"))

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    if self.STATE == "none":
      raise Mistake(f"mixer {self.mixer['name']!r} reads the whole sequence at once: no state, prefill or step")
    return self._inside(parent=None).init_state(batch, max_len)

  def mix(self, x: Float[Array, "b t d"], state: Any, where: Where) -> tuple[Float[Array, "b t d"], Any]:
    y, state = self.inner.prefill(_both(x, where.side), state, **where.masks)
    return self.out_proj(y), state

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    return self.out_proj(self.inner(_both(x, where.side), **where.masks))

  def mix_token(self, x: Float[Array, "b d"], state: Any, side: Mapping[str, Array]) -> tuple[Float[Array, "b d"], Any]:
    y, state = self.inner.step(_both(x, side), state)
    return self.out_proj(y), state

  @nn.nowrap
  def _inside(self, **kwargs: Any) -> nn.Module:
    return mixer_lib.build_spec(self.mixer, width=2 * self.width, layer=self.layer, depth=self.depth, **kwargs)


def _both(x: Float[Array, "*b d"], side: Mapping[str, Array]) -> Float[Array, "*b e"]:
  return jnp.concatenate([x, side[EMBEDDING].astype(x.dtype) if EMBEDDING in side else jnp.zeros_like(x)], axis=-1)
