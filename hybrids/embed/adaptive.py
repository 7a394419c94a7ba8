"""Adaptive embeddings: frequent tokens have wide vectors, rare ones narrow vectors that a map makes wide."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.embed.embedding import Embedding
from kernels.inputs import Lengths, product
from layers import param
from mistake import Mistake


class Cluster(NamedTuple):
  """Tokens of about the same frequency: a vector of each, and the map to the model's width."""

  table: Float[Array, "n w"]
  widen: Float[Array, "w d"]


class Adaptive(Embedding, kw_only=True):
  """x_t = E_i[token_t - c_i] P_i for the cluster i of the token, c_i <= token_t < c_{i+1}; E_i is width / div^i wide.

  Baevski & Auli 2019, arXiv:1809.10853, sec. 3. Tokens are to be numbered by falling frequency, as vocabularies of
  words are (configs/wikitext103.py makes one). The head "adaptive_softmax" shares E_i and P_i. Departs: nothing.

  Attributes:
    cutoffs: c_1, c_2 …: the first token of each cluster but the first one.
    div: by how much a cluster's vectors are narrower than those of the one before.
    start: E_i starts as N(0, start² / its width), P_i as N(0, start² / width); `std` is for positions alone.
    dropout: of the entries of E_i[token], in training.
  Raises:
    ValueError: when made, if a value is out of its range or the task has no vocab.
  """

  cutoffs: Sequence[int] = (20000, 40000, 200000)
  div: int = 4
  start: float = 1.0
  dropout: float = 0.0

  def __post_init__(self):
    if self.vocab is None:
      raise Mistake("embed.name='adaptive', but the task has no vocab; use 'features' or 'patches'")
    ends = (0, *self.cutoffs, self.vocab)
    if any(low >= high for low, high in zip(ends, ends[1:])):
      raise Mistake(f"embed.cutoffs={tuple(self.cutoffs)}; they must rise from above 0 to below vocab={self.vocab}")
    for name, fine, need in (
      ("div", self.div >= 1 and self.div ** len(self.cutoffs) <= self.width, "from 1 to where the last width is 1"),
      ("start", self.start > 0, "above 0"),
      ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
    ):
      if not fine:
        raise Mistake(f"embed.{name}={getattr(self, name)}; it must be {need} (width={self.width})")
    super().__post_init__()

  def setup(self):
    super().setup()
    ends = (0, *self.cutoffs, self.vocab)
    self.embedding = tuple(self._cluster(i, low, high) for i, (low, high) in enumerate(zip(ends, ends[1:])))
    self.drop = nn.Dropout(self.dropout)

  def vectors(self, inputs: Array, lengths: Lengths) -> Float[Array, "b t d"]:
    """Looks each token up in its cluster; tokens outside of the vocabulary give NaN."""
    self.require_tokens(inputs)
    x = jnp.full((*inputs.shape, self.width), jnp.nan)
    for low, (table, widen) in zip((0, *self.cutoffs), self.embedding):
      row = inputs - low
      narrow = jnp.take(table, row, axis=0, mode="clip")
      narrow = self.drop(narrow, deterministic=not self.has_rng("dropout"))
      inside = (row >= 0) & (row < len(table))
      x = jnp.where(inside[..., None], product("btw,wd->btd", narrow, widen, jnp.float32), x)
    return x

  def _cluster(self, i: int, low: int, high: int) -> Cluster:
    narrow = self.width // self.div**i
    normal = lambda size: nn.initializers.normal(self.start * size**-0.5)
    table = param(self, f"table_{i}", normal(narrow), (high - low, narrow), ("vocab", "embed"))
    return Cluster(table, param(self, f"widen_{i}", normal(self.width), (narrow, self.width), (None, "embed")))
