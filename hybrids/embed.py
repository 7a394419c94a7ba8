"""The model's first layer: tokens or features become vectors, and where a token stands is added to them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from layers import Dense, param
from layers.lengths import blank_past
from layers.positions import sinusoidal
from mistake import Mistake

POSITIONS = ("none", "learned", "sinusoidal")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Embed(nn.Module):
  """x_t = E[token_t] or W features_t, plus P[position_t]; the one place where the model's dtype is set.

  Positions count from the start of the document.

  Attributes:
    vocab: number of tokens, if the inputs are tokens.
    features: size of the input vectors, if they are vectors. The map has a bias.
    position: "none", "learned" (a table of `max_len` rows) or "sinusoidal".
    embed_std: standard deviation of the entries of both tables at the start. The usual 0.02 suits wide models; narrow
      ones, above all of attention, can learn much sooner from width^(-1/2).
    dtype: of what comes out, and thereby of the whole model; parameters, states and logits are float32.
  Raises:
    ValueError: when made, if not exactly one of `vocab` and `features` is given, a name is unknown, a size below 1 or
      `embed_std` not above 0; when called, if one document has more tokens than the learned table. What only the run
      knows is answered by NaN: a row with a position beyond the table, a token outside the vocabulary.
  """

  width: int
  vocab: int | None = None
  features: int | None = None
  position: str = "none"
  max_len: int = 4096
  embed_std: float = 0.02
  dtype: str = "float32"

  def __post_init__(self):
    if (self.vocab is None) == (self.features is None):
      raise Mistake(f"vocab={self.vocab}, features={self.features}: inputs are tokens or vectors; give one of them")
    for name in ("width", "vocab", "features", "max_len"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise Mistake(f"{name}={value}; it is at least 1")
    if not self.embed_std > 0:
      raise Mistake(f"embed_std={self.embed_std}; it is a standard deviation above 0")
    if self.position not in POSITIONS:
      raise Mistake(f"no position {self.position!r}; choose from {list(POSITIONS)} (mixers have 'rope' and the like)")
    if self.position == "sinusoidal" and self.width % 2:
      raise Mistake(f"position='sinusoidal' needs an even width, not {self.width}: it is made of sines and cosines")
    if self.dtype not in DTYPES:
      raise Mistake(f"no dtype {self.dtype!r}; choose from {list(DTYPES)}")
    super().__post_init__()

  def setup(self):
    normal = nn.initializers.normal(self.embed_std)
    if self.vocab is not None:
      self.embedding = param(self, "embedding", normal, (self.vocab, self.width), ("vocab", "embed"))
    else:
      self.in_proj = Dense(self.width, use_bias=True, axes=(None, "embed"))
    if self.position == "learned":
      self.positions = param(self, "positions", normal, (self.max_len, self.width), (None, "embed"))

  def __call__(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    position: Int[Array, "b"],
    *,
    reset: Bool[Array, "b t"] | None = None,
    lengths: Int[Array, "b"] | None = None,
  ) -> tuple[Float[Array, "b t d"], Int[Array, "b"]]:
    """The vectors, and each row's next position. What stands past `lengths` is ignored.

    Args:
      position: of each row's first token, unless that is a reset.
    """
    t = inputs.shape[1]
    if self.position == "learned" and reset is None and t > self.max_len:
      raise Mistake(f"{t} tokens, but position='learned' has a table of max_len={self.max_len}; raise max_len")
    where, following = positions(position, t, reset=reset, lengths=lengths)
    x = self._vectors(inputs if self.vocab else blank_past(inputs, lengths)) + self._places(where)
    return nn.with_logical_constraint(x.astype(DTYPES[self.dtype]), ("batch", "time", "embed")), following

  def step(
    self, inputs: Int[Array, "b"] | Float[Array, "b f"], position: Int[Array, "b"]
  ) -> tuple[Float[Array, "b d"], Int[Array, "b"]]:
    """One token."""
    x, following = self(inputs[:, None], position)
    return x[:, 0], following

  def _vectors(self, inputs: Array) -> Float[Array, "b t d"]:
    if self.vocab is None:
      if not jnp.issubdtype(inputs.dtype, jnp.floating) or inputs.shape[-1] != self.features:
        raise Mistake(f"inputs are {inputs.dtype} {inputs.shape}; features={self.features} wants floats of that size")
      return self.in_proj(inputs)
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
      raise Mistake(f"inputs are {inputs.dtype}; a model of vocab={self.vocab} wants integer tokens")
    # whole vectors on every device: otherwise each holds a part of every token's, to be exchanged for whole ones
    table = nn.with_logical_constraint(self.embedding, ("vocab", None))
    # indices below 0 would count from the end
    inputs = jnp.where(inputs < 0, self.vocab, inputs)
    return jnp.take(table, inputs, axis=0, mode="fill", fill_value=jnp.nan)

  def _places(self, where: Int[Array, "b t"]) -> Float[Array, "b t d"] | float:
    if self.position == "none":
      return 0.0
    if self.position == "sinusoidal":
      return sinusoidal(where, self.width)
    beyond = jnp.any(where >= self.max_len, axis=1)[:, None, None]
    return jnp.where(beyond, jnp.nan, jnp.take(self.positions, where, axis=0, mode="clip"))


def positions(
  position: Int[Array, "b"],
  t: int,
  *,
  reset: Bool[Array, "b t"] | None = None,
  lengths: Int[Array, "b"] | None = None,
) -> tuple[Int[Array, "b t"], Int[Array, "b"]]:
  """Where each of t tokens stands in its document (0 past `lengths`), and where the token after each row's last will.

  Args:
    position: of the first token if it continues a document.
  """
  time = jnp.arange(t, dtype=jnp.int32)
  count = jnp.full_like(position, t) if lengths is None else lengths.astype(position.dtype)
  here = time < count[:, None]
  # index of the document's first token; a document that is being continued began `position` tokens before the row
  start = jnp.broadcast_to(-position[:, None], here.shape)
  if reset is not None:
    start = jax.lax.cummax(jnp.where(reset & here, time, start), axis=1)
  return jnp.where(here, time - start, 0), count - start[:, -1]
