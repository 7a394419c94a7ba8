"""Embeddings of floats: the features of each token, and squares of images."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hybrids.embed.embedding import Embedded, Embedding
from kernels.inputs import Lengths, Reset
from layers import Dense, LayerNorm, images
from layers.activations import gelu
from layers.image_conv import HalvingConv
from layers.lengths import blank_past
from mistake import Mistake


class Features(Embedding, kw_only=True):
  """x_t = W features_t + bias."""

  def __post_init__(self):
    if self.features is None:
      raise Mistake(f"embedding {type(self).__name__} reads features, but the task has none; use embed.name='tokens'")
    super().__post_init__()

  def setup(self):
    super().setup()
    self.in_proj = Dense(self.width, use_bias=True, axes=(None, "embed"))

  def vectors(self, inputs: Float[Array, "b t f"], lengths: Lengths) -> Float[Array, "b t d"]:
    """Maps the features of each token linearly."""
    return self.in_proj(blank_past(self._floats(inputs), lengths))

  @nn.nowrap
  def _floats(self, inputs: Array) -> Float[Array, "b t f"]:
    if not jnp.issubdtype(inputs.dtype, jnp.floating) or inputs.shape[-1] != self.features:
      raise Mistake(f"inputs are {inputs.dtype} {inputs.shape}; features={self.features} wants floats of that size")
    return inputs


class Patches(Features, kw_only=True):
  """x = W patch + bias for each square of an image whose pixels come row by row, as in ViT; one vector a patch.

  Attributes:
    size: pixels along each side of a patch.
    rows: pixels along the image's height; if not given, the most square image that the number of pixels allows.
  Raises:
    ValueError: when called, if patches do not fill the image, or with `reset` or `lengths`.
  """

  size: int = 4
  rows: int | None = None

  NAME = "patches"
  RESUMES = False

  def vectors(self, inputs: Float[Array, "b t f"], lengths: Lengths) -> Float[Array, "b s d"]:
    """Maps each patch linearly, in the order of the image's rows."""
    b, t, f = self._floats(inputs).shape
    rows, columns = self._sides(t)
    x = inputs.reshape(b, rows // self.size, self.size, columns // self.size, self.size, f)
    return self.in_proj(x.swapaxes(2, 3).reshape(b, t // self.size**2, self.size**2 * f))

  @nn.nowrap
  def _sides(self, t: int) -> tuple[int, ...]:
    """Returns the rows and columns of an image of t pixels, which patches must fill."""
    rows, columns = images.sides("patches", t, {"rows": self.rows, "columns": None})
    if self.size < 1 or rows % self.size or columns % self.size:
      raise Mistake(f"patches: size={self.size} does not divide an image of {rows} by {columns} pixels; set size")
    return rows, columns

  def __call__(
    self,
    inputs: Float[Array, "b t f"],
    position: Int[Array, "b"],
    context: Any = (),
    *,
    reset: Reset = None,
    lengths: Lengths = None,
  ) -> Embedded:
    """Returns the vectors of the patches."""
    if reset is not None or lengths is not None:
      raise Mistake(f"embed.name={self.NAME!r} reads whole images: neither packed documents nor padding")
    return super().__call__(inputs, position, context)


class ConvStem(Patches, kw_only=True):
  """norm(conv(GELU(norm(conv(image))))): two convolutions by 3 by 3 pixels that halve each side, as in VMamba.

  One vector for 4 by 4 pixels; the first convolution has half of the width. Norms are LayerNorm, and GELU is by erf.
  """

  NAME = "conv_stem"

  def __post_init__(self):
    if self.size != 4:
      raise Mistake(f"conv_stem: size={self.size}; two convolutions that halve make one vector of 4 by 4 pixels")
    super().__post_init__()

  def setup(self):
    super(Features, self).setup()
    self.convs = [HalvingConv(self.width // 2), HalvingConv(self.width)]
    self.norms = [LayerNorm(), LayerNorm()]

  def vectors(self, inputs: Float[Array, "b t f"], lengths: Lengths) -> Float[Array, "b s d"]:
    """Maps the image to a quarter of its rows and columns, in the order of the rows."""
    b, t, f = self._floats(inputs).shape
    x = self.norms[0](self.convs[0](inputs.reshape(b, *self._sides(t), f)))
    return self.norms[1](self.convs[1](gelu(x))).reshape(b, t // self.size**2, self.width)
