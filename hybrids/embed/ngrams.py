"""Embeddings of tokens and of the n-grams that end at them, which are found in tables by hashes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hybrids.embed.tokens import Tokens
from kernels.inputs import Lengths
from layers import Dense, ngrams, param
from layers.choices import one_of
from layers.sizes import at_least_one
from mistake import Mistake

# the input per token by which a model offers vectors of n-grams to its body
NGRAMS = "ngrams"
USES = ("sum", "layers")


class NGrams(Tokens, kw_only=True):
  """x_t = E[token_t] + W n_t with n_t = [T_1[r_1t], T_2[r_2t], …], the vectors of the n-grams that end at token t.

  There are `heads` tables for the two tokens that end at t, as many for three, up to `order` tokens; `layers.ngrams`
  has the rows r. Before the first token of a document, and before a token `end` within it, stand tokens `end`.

  Huang et al. 2025, arXiv:2501.16975 (the sum, over-encoding). Departs: rows are the hashes of `models/qwen4_exp` of
  transformers, and nothing is averaged.

  Attributes:
    use: of the vectors n_t: "sum", as above, or "layers": they stand beside each token for `engram` mixers in the body,
      one set of tables for each, and x_t = E[token_t] (Cheng et al. 2026, arXiv:2601.07372: Engram; Qwen4-Exp).
    order: tokens of the longest n-gram.
    heads: tables for each length.
    size: entries of n_t, `order` - 1 times `heads` equal parts; the width if not given.
    rows: of each table, at least: each has the next prime from there on.
    multiple: all tables of a set, which stand one below the other, are filled up to a multiple of this.
    sets: sets of tables, each with hashes of its own; "sum" has all of them side by side in n_t.
    seed: of the multipliers.
    end: the token that ends a document.
  Raises:
    ValueError: when made, if a number is below 1, the tables do not divide the size, or a set has 2^31 rows or more.
  """

  use: str = "sum"
  order: int = 3
  heads: int = 8
  size: int | None = None
  rows: int = 2**14
  multiple: int = 128
  sets: int = 1
  seed: int = 1234
  end: int = 0

  def __post_init__(self):
    one_of(self, use=USES)
    at_least_one(self, "order", "heads", "size", "rows", "multiple", "sets")
    super().__post_init__()
    if self.order < 2:
      raise Mistake(f"embed.order={self.order}; an n-gram has at least 2 tokens, or use the embedding 'tokens'")
    if self._size % self._tables:
      raise Mistake(
        f"embed.size={self._size} is no multiple of heads={self.heads} times order - 1 = {self.order - 1}, the number "
        "of tables, each of which has an equal part of it"
      )
    assert self.vocab is not None, "checked just before"
    if not 0 <= self.end < self.vocab:
      raise Mistake(f"embed.end={self.end} is no token of vocab={self.vocab}")
    if self.use == "layers" and self.class_token != "none":
      raise Mistake(f"embed.class_token={self.class_token!r} ends no n-gram; with use='layers' leave it out")
    # of different primes the last set has at least so many, which are not found one by one to be too many
    least = self._tables * (self.rows + (self.sets - 1) * self._tables)
    if least >= 2**31 or self.rows_of(self.sets - 1) >= 2**31:
      raise Mistake(f"embed.rows={self.rows} in {self._tables} tables; a set must have fewer than 2^31 rows")

  @property
  def OFFERS(self) -> tuple[str, ...]:
    """Returns the name of the vectors beside each token, if the body is to read them."""
    return (NGRAMS,) if self.use == "layers" else ()

  @nn.nowrap
  def sizes_of(self, number: int) -> tuple[int, ...]:
    """Returns the rows of each table of a set."""
    return ngrams.primes(self.rows, number * self._tables, self._tables)

  @nn.nowrap
  def rows_of(self, number: int) -> int:
    """Returns the rows of a set of tables."""
    return -(-sum(self.sizes_of(number)) // self.multiple) * self.multiple

  @nn.nowrap
  def multipliers_of(self, number: int) -> tuple[int, ...]:
    """Returns the multipliers of a set of tables."""
    assert self.vocab is not None, "checked when it is made"
    return ngrams.multipliers(self.vocab, self.order, seed=self.seed, layer=number)

  def setup(self):
    super().setup()
    normal, part = nn.initializers.normal(self.std), self._size // self._tables

    def tables(number: int) -> Float[Array, "r k"]:
      rows = self.rows_of(number)
      # a token passes one row of each table
      used = self._tables / rows
      return param(self, f"tables_{number}", normal, (rows, part), ("rows", None), used=used)

    self.tables = [tables(number) for number in range(self.sets)]
    if self.use == "sum":
      self.ngram_proj = Dense(self.width, axes=(None, "embed"))

  @nn.nowrap
  def init_context(self, batch: int) -> Int[Array, "b w"]:
    """Returns the tokens before the first one."""
    return jnp.full((batch, self.order - 1), self.end, jnp.int32)

  def look_back(
    self, x: Float[Array, "b t d"], inputs: Array, context: Any, offset: Int[Array, "b t"], lengths: Lengths
  ) -> tuple[Float[Array, "b t d"], Mapping[str, Array], Any]:
    """Returns the vectors, those of the n-grams, and the last tokens."""
    b, t = inputs.shape
    context = self.init_context(b) if isinstance(context, tuple) else context
    tokens = jnp.concatenate([context, inputs.astype(jnp.int32)], axis=1)
    shifted = self._shifted(tokens, offset)
    n = jnp.concatenate([self._vectors(shifted, number) for number in range(self.sets)], axis=-1)
    ends = jnp.full((b,), t) if lengths is None else lengths
    after = jnp.take_along_axis(tokens, ends[:, None] + jnp.arange(self.order - 1), axis=1)
    return (x + self.ngram_proj(n), {}, after) if self.use == "sum" else (x, {NGRAMS: n}, after)

  @nn.nowrap
  def _shifted(self, tokens: Int[Array, "b s"], offset: Int[Array, "b t"]) -> list[Int[Array, "b t"]]:
    """Returns each token, the one before it, …; `end` where that belongs to another document."""
    t, w = offset.shape[1], self.order - 1
    shifted, same = [tokens[:, w:]], jnp.ones(offset.shape, bool)
    for back in range(1, self.order):
      before = tokens[:, w - back : w - back + t]
      same &= (before != self.end) & (offset >= back)
      shifted.append(jnp.where(same, before, self.end))
    return shifted

  def _vectors(self, shifted: list[Int[Array, "b t"]], number: int) -> Float[Array, "b t e"]:
    """Looks up the n-grams in the tables of a set."""
    by, sizes, heads = self.multipliers_of(number), self.sizes_of(number), self.heads
    found = [
      ngrams.rows(shifted[:n], by[:n], sizes[(n - 2) * heads : (n - 1) * heads]) for n in range(2, self.order + 1)
    ]
    starts = np.cumsum((0, *sizes[:-1]), dtype=np.int32)
    whole = nn.with_logical_constraint(self.tables[number], ("rows", None))
    vectors = jnp.take(whole, jnp.concatenate(found, axis=-1) + starts, axis=0)
    return vectors.reshape(*vectors.shape[:-2], -1)

  @property
  def _tables(self) -> int:
    return (self.order - 1) * self.heads

  @property
  def _size(self) -> int:
    return self.size or self.width
