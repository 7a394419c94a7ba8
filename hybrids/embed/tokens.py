"""Embeddings of tokens: a table, and the two strands of DNA."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hybrids.embed.embedding import Embedding
from kernels.inputs import Lengths
from layers import param
from layers.choices import one_of
from mistake import Mistake

# tokens of bases that pair
PAIRS = {"numbers": ((1, 4), (2, 3)), "letters": tuple((ord(a), ord(b)) for a, b in ("AT", "CG", "at", "cg"))}


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
    self.require_tokens(inputs)
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
