"""A model's first layer: tokens, features or patches become vectors, and their positions are added."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.branch import check_norm
from kernels.documents import positions
from kernels.inputs import Lengths, Reset, valid
from layers import Dense, LayerNorm, images, param
from layers.activations import gelu
from layers.choices import one_of
from layers.image_conv import HalvingConv
from layers.lengths import blank_past
from layers.norms import make_norm
from layers.positions import sinusoidal
from mistake import Mistake

POSITIONS = ("none", "learned", "sinusoidal")
CLASS_TOKENS = ("none", "start", "middle", "end")
# tokens of bases that pair
PAIRS = {"numbers": ((1, 4), (2, 3)), "letters": tuple((ord(a), ord(b)) for a, b in ("AT", "CG", "at", "cg"))}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Embedded(NamedTuple):
  """The inputs of the body, and the position of each row in its document.

  Attributes:
    position: of the token after each row's last, in its document.
    place: where the class token stands in each row, if there is one.
  """

  x: Float[Array, "b t d"]
  position: Int[Array, "b"]
  reset: Reset
  lengths: Lengths
  place: Int[Array, "b"] | None


class Embedding(nn.Module, kw_only=True):
  """norm(scale · vectors(inputs) + P[position]), with a class token inserted; the base class of all embeddings.

  With `scaled`, the vectors x come out of this as (x + b) s, b and s being learned, for each channel (Zaya).

  A subclass has `vectors`. Positions count from the start of the document. The model's dtype is set here.

  Attributes:
    position: "none", "learned" (a table of `max_len` rows) or "sinusoidal".
    scale: a fixed factor of the vectors, before positions are added: Gemma's is the root of the width.
    norm: a norm's `name` and arguments; "none" for no norm.
    scaled: whether there are b and s, as above; at the start they change nothing.
    std: standard deviation of the entries of all tables at the start. The usual 0.02 suits wide models; narrow ones,
      above all of attention, can learn much sooner from width^(-1/2).
    class_token: where a learned vector without a position is put into each row: "none", or at its "start", "middle"
      (Vim) or "end". Only the last goes with `reset`.
    vocab, features: the sizes of the inputs, given by the task.
    max_len: given by the model.
    dtype: of what comes out, and thereby of the whole model; states and logits are float32.
  Raises:
    ValueError: when made, if a name is unknown, a size below 1 or `std` not above 0; when called, if one document has
      more tokens than the learned table. What only the run knows is answered by NaN: a row with a position beyond the
      table, a token outside the vocabulary.
  """

  width: int
  vocab: int | None = None
  features: int | None = None
  position: str = "none"
  scale: float = 1.0
  norm: Mapping[str, Any] = FrozenDict(name="none")
  scaled: bool = False
  std: float = 0.02
  class_token: str = "none"
  max_len: int = 4096
  dtype: str = "float32"

  # whether inputs may come in pieces
  RESUMES = True
  FROM_TASK = ("width", "vocab", "features", "max_len", "dtype")

  def __post_init__(self):
    self.norm = mixer_lib.frozen(self.norm)
    for name in ("width", "vocab", "features", "max_len"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise Mistake(f"{name}={value}; it is at least 1")
    if not self.std > 0:
      raise Mistake(f"embed.std={self.std}; it is a standard deviation above 0")
    if self.position not in POSITIONS:
      raise Mistake(f"no position {self.position!r}; choose from {list(POSITIONS)} (mixers have 'rope' and the like)")
    if self.position == "sinusoidal" and self.width % 2:
      raise Mistake(f"position='sinusoidal' needs an even width, not {self.width}: it is made of sines and cosines")
    one_of(self, class_token=CLASS_TOKENS, dtype=DTYPES)
    if self.norm["name"] != "none":
      check_norm(self.norm)
    super().__post_init__()

  def setup(self):
    normal = nn.initializers.normal(self.std)
    if self.position == "learned":
      self.positions = param(self, "positions", normal, (self.max_len, self.width), (None, "embed"))
    if self.norm["name"] != "none":
      self.norm_in = make_norm(**self.norm)
    if self.scaled:
      vector = lambda name, init: param(self, name, init, (self.width,), ("embed",))
      self.channel_bias = vector("channel_bias", nn.initializers.zeros)
      self.channel_scale = vector("channel_scale", nn.initializers.ones)
    if self.class_token != "none":
      self.cls = param(self, "class_token", normal, (self.width,), ("embed",))

  def vectors(self, inputs: Array, lengths: Lengths) -> Float[Array, "b t d"]:
    """Maps the inputs to vectors."""
    raise TypeError(f"{type(self).__name__} defines no vectors(inputs, lengths)")

  def __call__(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    position: Int[Array, "b"],
    *,
    reset: Reset = None,
    lengths: Lengths = None,
  ) -> Embedded:
    """Returns the vectors with positions, without a class token; values in the padding do not matter.

    Args:
      position: of each row's first token, unless that is a reset.
    """
    x = self.vectors(inputs, lengths)
    t = x.shape[1]
    if self.position == "learned" and reset is None and t > self.max_len:
      raise Mistake(f"{t} tokens, but position='learned' has a table of max_len={self.max_len}; raise max_len")
    where, following = positions(position, t, reset=reset, lengths=lengths)
    where = where if lengths is None else jnp.where(valid(lengths, t), where, 0)
    x = (x if self.scale == 1 else x * self.scale) + self._places(where)
    x = self.norm_in(x) if self.norm["name"] != "none" else x
    x = (x + self.channel_bias) * self.channel_scale if self.scaled else x
    x = nn.with_logical_constraint(x.astype(DTYPES[self.dtype]), ("batch", "time", "embed"))
    return Embedded(x, following, reset, lengths, None)

  def step(
    self, inputs: Int[Array, "b"] | Float[Array, "b f"], position: Int[Array, "b"]
  ) -> tuple[Float[Array, "b d"], Int[Array, "b"]]:
    """Embeds one token of each row."""
    embedded = self(inputs[:, None], position)
    return embedded.x[:, 0], embedded.position

  def token(self, rows: int) -> Float[Array, "b d"]:
    """Returns the class token, once a row."""
    return jnp.broadcast_to(self.cls.astype(DTYPES[self.dtype]), (rows, self.width))

  def insert(self, embedded: Embedded) -> Embedded:
    """Inserts the class token among the vectors of each row.

    Raises:
      ValueError: documents are packed, and the token does not stand at the end.
    """
    x, position, reset, lengths, _ = embedded
    b, t, _ = x.shape
    if reset is not None and self.class_token != "end":
      raise Mistake(f"class_token={self.class_token!r} of packed documents belongs to none of them; set it to 'end'")
    n = jnp.full((b,), t, jnp.int32) if lengths is None else lengths
    place = {"start": jnp.zeros_like(n), "middle": n // 2, "end": n}[self.class_token]
    index = jnp.arange(t + 1)
    before = jnp.clip(index - (index > place[:, None]), 0, t - 1)
    here = index == place[:, None]
    x = jnp.where(here[..., None], self.cls.astype(x.dtype), jnp.take_along_axis(x, before[..., None], axis=1))
    if reset is not None:
      reset = jnp.take_along_axis(reset, before, axis=1) & ~here
    return Embedded(x, position, reset, None if lengths is None else lengths + 1, place)

  def _places(self, where: Int[Array, "b t"]) -> Float[Array, "b t d"] | float:
    if self.position == "none":
      return 0.0
    if self.position == "sinusoidal":
      return sinusoidal(where, self.width)
    beyond = jnp.any(where >= self.max_len, axis=1)[:, None, None]
    return jnp.where(beyond, jnp.nan, jnp.take(self.positions, where, axis=0, mode="clip"))


class Tokens(Embedding, kw_only=True):
  """x_t = E[token_t]."""

  def __post_init__(self):
    if self.vocab is None:
      raise Mistake("embed.name='tokens', but the task has no vocab; use 'features' or 'patches'")
    super().__post_init__()

  def setup(self):
    super().setup()
    normal = nn.initializers.normal(self.std)
    self.embedding = param(self, "embedding", normal, (self.vocab, self.width), ("vocab", "embed"))

  def vectors(self, inputs: Array, lengths: Lengths) -> Float[Array, "b t d"]:
    """Looks up the rows of the table; tokens outside of it give NaN."""
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
      raise Mistake(f"inputs are {inputs.dtype}; a model of vocab={self.vocab} wants integer tokens")
    # whole vectors on every device: otherwise each holds a part of every token's, to be exchanged for whole ones
    table = nn.with_logical_constraint(self.embedding, ("vocab", None))
    # indices below 0 would count from the end
    assert self.vocab is not None, "checked when it is made"
    inputs = jnp.where(inputs < 0, self.vocab, inputs)
    return jnp.take(table, inputs, axis=0, mode="fill", fill_value=jnp.nan)


class Strands(Embedding, kw_only=True):
  """x_t = [E[base_t], R E[complement of base_t]], R reversing the channels: the embedding of Caduceus.

  Schiff et al. 2024, arXiv:2403.03234, sec. 3.2. The reverse complement of a sequence has the same vectors in the
  opposite order, their channels reversed; see `hybrids.wrap.reverse_complement`.

  Attributes:
    bases: the tokens of A, C, G and T: "numbers" 1 to 4, as in the promoter sets, or "letters", their bytes, as in
      FASTA. Other tokens are complements of themselves.
  Raises:
    ValueError: the width is odd, or there is a position or a class token, which tell one strand from the other.
  """

  bases: str = "numbers"

  def __post_init__(self):
    one_of(self, bases=PAIRS)
    if self.vocab is None or self.width % 2 or self.position != "none" or self.class_token != "none":
      raise Mistake(
        f"embed.name='strands' wants tokens, an even width, no position and no class token; it has vocab={self.vocab}, "
        f"width={self.width}, position={self.position!r}, class_token={self.class_token!r}"
      )
    super().__post_init__()

  def setup(self):
    super().setup()
    normal = nn.initializers.normal(self.std)
    self.strand = param(self, "strand", normal, (self.vocab, self.width // 2), ("vocab", "embed"))

  def vectors(self, inputs: Int[Array, "b t"], lengths: Lengths) -> Float[Array, "b t d"]:
    """Looks up each base and its complement; tokens outside of the table give NaN."""
    assert self.vocab is not None, "checked when it is made"
    complement = np.arange(self.vocab)
    for one, other in PAIRS[self.bases]:
      if max(one, other) < self.vocab:
        complement[[one, other]] = other, one
    inputs = jnp.where(inputs < 0, self.vocab, inputs)
    look = lambda table: jnp.take(table, inputs, axis=0, mode="fill", fill_value=jnp.nan)
    return jnp.concatenate([look(self.strand), look(self.strand[complement])[..., ::-1]], axis=-1)


class Features(Embedding, kw_only=True):
  """x_t = W features_t + bias."""

  def __post_init__(self):
    if self.features is None:
      raise Mistake(f"embed.name={type(self).__name__.lower()!r}, but the task has no features; use 'tokens'")
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
    self, inputs: Float[Array, "b t f"], position: Int[Array, "b"], *, reset: Reset = None, lengths: Lengths = None
  ) -> Embedded:
    """Returns the vectors of the patches."""
    if reset is not None or lengths is not None:
      name = {cls: name for name, cls in EMBEDDINGS.items()}[type(self)]
      raise Mistake(f"embed.name={name!r} reads whole images: neither packed documents nor padding")
    return super().__call__(inputs, position)


class ConvStem(Patches, kw_only=True):
  """norm(conv(GELU(norm(conv(image))))): two convolutions by 3 by 3 pixels that halve each side, as in VMamba.

  One vector for 4 by 4 pixels; the first convolution has half of the width. Norms are LayerNorm, and GELU is by erf.
  """

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


EMBEDDINGS: dict[str, type[Embedding]] = {
  "conv_stem": ConvStem,
  "features": Features,
  "patches": Patches,
  "strands": Strands,
  "tokens": Tokens,
}
