"""The base class of all embeddings: vectors of the inputs, their positions, and a class token among them."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict
from jaxtyping import Array, Float, Int

from hybrids import mixer as mixer_lib
from hybrids.branch import check_norm
from kernels.documents import positions
from kernels.inputs import Lengths, Reset, valid
from layers import param
from layers.choices import one_of
from layers.norms import make_token_norm
from layers.positions import sinusoidal
from mistake import Mistake

POSITIONS = ("none", "learned", "sinusoidal")
CLASS_TOKENS = ("none", "start", "middle", "end")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Embedded(NamedTuple):
  """The inputs of the body, and the position of each row in its document.

  Attributes:
    position: of the token after each row's last, in its document.
    place: where the class token stands in each row, if there is one.
    side: arrays beside each token for mixers of the body.
    context: what the next call needs of the tokens so far.
  """

  x: Float[Array, "b t d"]
  position: Int[Array, "b"]
  reset: Reset
  lengths: Lengths
  place: Int[Array, "b"] | None
  side: Mapping[str, Array] = FrozenDict()
  context: Any = ()


class Embedding(nn.Module, kw_only=True):
  """norm(scale · vectors(inputs) + P[position]), with a class token inserted; the base class of all embeddings.

  With `scaled`, the vectors x come out of this as (x + b) s, b and s being learned, for each channel (Zaya).

  A subclass has `vectors`; one that looks at earlier tokens has `init_context` and `look_back` as well. Positions count
  from the start of the document. The model's dtype is set here.

  Attributes:
    position: "none", "learned" (a table of `max_len` rows) or "sinusoidal".
    scale: a fixed factor of the vectors, before positions are added: Gemma's is the root of the width.
    norm: a norm's `name` and arguments; "none" for no norm.
    scaled: whether there are b and s, as above; at the start they change nothing.
    std: standard deviation of the entries of all tables at the start. The usual 0.02 suits wide models; narrow ones,
      above all of attention, can learn much sooner from width^(-1/2).
    position_std: the same of the learned positions alone; `std` if not given.
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
  position_std: float | None = None
  class_token: str = "none"
  max_len: int = 4096
  dtype: str = "float32"

  # whether inputs may come in pieces
  RESUMES = True
  # names of the arrays in `Embedded.side`
  OFFERS: ClassVar[tuple[str, ...]] = ()
  FROM_TASK = ("width", "vocab", "features", "max_len", "dtype")

  def __post_init__(self):
    self.norm = mixer_lib.frozen(self.norm)
    for name in ("width", "vocab", "features", "max_len"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise Mistake(f"{name}={value}; it is at least 1")
    for name in ("std", "position_std"):
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise Mistake(f"embed.{name}={value}; it is a standard deviation above 0")
    if self.position not in POSITIONS:
      raise Mistake(f"no position {self.position!r}; choose from {list(POSITIONS)} (mixers have 'rope' and the like)")
    if self.position == "sinusoidal" and self.width % 2:
      raise Mistake(f"position='sinusoidal' needs an even width, not {self.width}: it is made of sines and cosines")
    one_of(self, class_token=CLASS_TOKENS, dtype=DTYPES)
    if self.norm.get("name") != "none":
      check_norm(self.norm)
    super().__post_init__()

  def setup(self):
    normal = nn.initializers.normal(self.std)
    if self.position == "learned":
      init = normal if self.position_std is None else nn.initializers.normal(self.position_std)
      self.positions = param(self, "positions", init, (self.max_len, self.width), (None, "embed"))
    if self.norm["name"] != "none":
      self.norm_in = make_token_norm(**self.norm)
    if self.scaled:
      vector = lambda name, init: param(self, name, init, (self.width,), ("embed",))
      self.channel_bias = vector("channel_bias", nn.initializers.zeros)
      self.channel_scale = vector("channel_scale", nn.initializers.ones)
    if self.class_token != "none":
      self.cls = param(self, "class_token", normal, (self.width,), ("embed",))

  def vectors(self, inputs: Array, lengths: Lengths) -> Float[Array, "b t d"]:
    """Maps the inputs to vectors."""
    raise TypeError(f"{type(self).__name__} defines no vectors(inputs, lengths)")

  @nn.nowrap
  def require_tokens(self, inputs: Array) -> None:
    """Refuses inputs that are no whole numbers."""
    if not jnp.issubdtype(inputs.dtype, jnp.integer):
      raise Mistake(f"inputs are {inputs.dtype}; a model of vocab={self.vocab} wants integer tokens")

  @nn.nowrap
  def init_context(self, batch: int) -> Any:
    """Returns the context before any token: nothing, unless earlier tokens matter."""
    return ()

  def look_back(
    self, x: Float[Array, "b t d"], inputs: Array, context: Any, offset: Int[Array, "b t"], lengths: Lengths
  ) -> tuple[Float[Array, "b t d"], Mapping[str, Array], Any]:
    """Returns the vectors with what earlier tokens add to them, arrays for the body, and the context after the tokens.

    Args:
      offset: of each token in its document.
    """
    del inputs, offset, lengths
    return x, {}, context

  def __call__(
    self,
    inputs: Int[Array, "b t"] | Float[Array, "b t f"],
    position: Int[Array, "b"],
    context: Any = (),
    *,
    reset: Reset = None,
    lengths: Lengths = None,
  ) -> Embedded:
    """Returns the vectors with positions, without a class token; values in the padding do not matter.

    Args:
      position: of each row's first token, unless that is a reset.
      context: what an earlier call returned, or `init_context`.
    """
    x = self.vectors(inputs, lengths)
    t = x.shape[1]
    if self.position == "learned" and reset is None and t > self.max_len:
      raise Mistake(f"{t} tokens, but position='learned' has a table of max_len={self.max_len}; raise max_len")
    where, following = positions(position, t, reset=reset, lengths=lengths)
    x, side, context = self.look_back(x, inputs, context, where, lengths)
    where = where if lengths is None else jnp.where(valid(lengths, t), where, 0)
    x = (x if self.scale == 1 else x * self.scale) + self._places(where)
    x = self.norm_in(x) if self.norm["name"] != "none" else x
    x = (x + self.channel_bias) * self.channel_scale if self.scaled else x
    dtype = DTYPES[self.dtype]
    x = nn.with_logical_constraint(x.astype(dtype), ("batch", "time", "embed"))
    side = {name: value.astype(dtype) for name, value in side.items()}
    return Embedded(x, following, reset, lengths, None, side, context)

  def step(
    self, inputs: Int[Array, "b"] | Float[Array, "b f"], position: Int[Array, "b"], context: Any = ()
  ) -> Embedded:
    """Embeds one token of each row; what is returned has no axis over time."""
    one = self(inputs[:, None], position, context)
    return one._replace(x=one.x[:, 0], side={name: value[:, 0] for name, value in one.side.items()})

  def token(self, rows: int) -> Float[Array, "b d"]:
    """Returns the class token, once a row."""
    return jnp.broadcast_to(self.cls.astype(DTYPES[self.dtype]), (rows, self.width))

  def insert(self, embedded: Embedded) -> Embedded:
    """Inserts the class token among the vectors of each row.

    Raises:
      ValueError: documents are packed, and the token does not stand at the end.
    """
    x, position, reset, lengths = embedded[:4]
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
    return embedded._replace(x=x, reset=reset, lengths=None if lengths is None else lengths + 1, place=place)

  def _places(self, where: Int[Array, "b t"]) -> Float[Array, "b t d"] | float:
    if self.position == "none":
      return 0.0
    if self.position == "sinusoidal":
      return sinusoidal(where, self.width)
    beyond = jnp.any(where >= self.max_len, axis=1)[:, None, None]
    return jnp.where(beyond, jnp.nan, jnp.take(self.positions, where, axis=0, mode="clip"))
