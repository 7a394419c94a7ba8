"""A stack whose layers pass on several streams in place of one sum; its state is that of the stack."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float

from hybrids import mixer as mixer_lib
from hybrids.body.streams import Streams
from layers.norms import make_token_norm
from layers.sizes import at_least_one


class HyperStack(Streams):
  """norm(mean_i x_i), with streams x_i that are all x before the first layer, and `hyper_connection`s as layers.

  Xie et al. 2025, arXiv:2512.24880 (mHC), as in `models/glm5_next` of transformers.

  Attributes:
    stack: fields of the `stack`; its letters are mixers, or their `mixer` and `norm`.
    norm: of letters that do not set one, and the last one.
    streams, iterations, eps, norm_eps: as in `hyper_connection`.
  Raises:
    ValueError: when made, if a number is below 1, a letter has other fields, or the stack cannot be built.
  """

  width: int
  stack: Mapping[str, Any]
  norm: Mapping[str, Any] = FrozenDict(name="rms")
  streams: int = 4
  iterations: int = 20
  eps: float = 1e-6
  norm_eps: float = 1e-5

  OWN = ("mixer", "norm")

  def __post_init__(self):
    self.norm = mixer_lib.frozen(self.norm)
    at_least_one(self, "iterations")
    super().__post_init__()

  def setup(self):
    super().setup()
    self.final_norm = make_token_norm(**self.norm)

  @nn.nowrap
  def connection(self, letter: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a hyper-connection around the letter's mixer."""
    numbers = dict(streams=self.streams, iterations=self.iterations, eps=self.eps, norm_eps=self.norm_eps)
    mixer = dict(name="hyper_connection", **{"norm": self.norm, **fields}, **numbers)
    return dict(mixer=mixer, norm_position="none", skip=0.0)

  def joined(self, y: Float[Array, "*b e"]) -> Float[Array, "*b d"]:
    """Returns the normalised mean of the streams."""
    return self.final_norm(jnp.mean(y.reshape(*y.shape[:-1], self.streams, -1), axis=-2))
