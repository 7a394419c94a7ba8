"""The adaptive softmax: rare tokens stand in clusters, whose members are told apart in fewer dimensions."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrids.embed.adaptive import Cluster
from hybrids.head.head import Outputs
from hybrids.head.next_token import NextToken
from kernels.inputs import product
from layers import param
from mistake import Mistake


class AdaptiveSoftmax(NextToken, kw_only=True):
  """Log-probabilities of the next token over the clusters of the embedding "adaptive", whose E_i and P_i it shares.

  l = log softmax([E_0; C] Q y + b_0), a number for each token of cluster 0 and one for each other cluster
  log p(token) = l[token] in cluster 0, and l[cluster i] + log softmax(E_i P_i y + b_i)[token - c_i] in cluster i

  Grave et al. 2017, arXiv:1609.04309, with the embedding's tables as in Baevski & Auli 2019, arXiv:1809.10853. Q starts
  as N(0, 1 / width), C and b as 0. Departs: all clusters are computed for all tokens, chunk by chunk, where the papers
  compute a cluster for the tokens that are in it; shapes must not depend on the data, and the values are the same. What
  is dropped is the same in every chunk of tokens.

  Attributes:
    dropout: of Q y and P_i y, in training.
    cutoffs: the embedding's, given by the model.
  Raises:
    ValueError: when made, if `dropout` is no share, or the embedding is another one or of another width.
  """

  dropout: float = 0.0
  cutoffs: tuple[int, ...] = ()

  FROM_TASK = (*NextToken.FROM_TASK, "cutoffs")

  def __post_init__(self):
    super().__post_init__()
    if not self.cutoffs:
      raise Mistake("head.name='adaptive_softmax' shares the clusters of embed.name='adaptive'; set both")
    if not 0 <= self.dropout < 1:
      raise Mistake(f"head.dropout={self.dropout}; it must be from 0 to below 1")

  def setup(self):
    zeros, normal = nn.initializers.zeros, nn.initializers.normal(self.width**-0.5)
    self.drop = nn.Dropout(self.dropout)
    self.first = param(self, "first", normal, (self.width, self.width), ("inner", "embed"))
    self.clusters = param(self, "clusters", zeros, (len(self.cutoffs), self.width), (None, "embed"))
    self.b = param(self, "b", zeros, (self.vocab + len(self.cutoffs),), (None,))

  def reader(self, outputs: Outputs) -> Callable[[Float[Array, "*b d"]], Float[Array, "*b v"]]:
    """Returns the function from outputs of the body to log-probabilities."""
    table = outputs.table
    if not isinstance(table, tuple) or table[0].widen.shape[-1] != self.width:
      raise Mistake(
        f"head 'adaptive_softmax' shares the clusters of a model of its width; the body's outputs have {self.width}"
      )
    return lambda y: self._log_probabilities(y, table)

  def _log_probabilities(self, y: Float[Array, "*b d"], clusters: Sequence[Cluster]) -> Float[Array, "*b v"]:
    (frequent, _), rare = clusters[0], clusters[1:]
    *biases, of_clusters = jnp.split(self.b, [*self.cutoffs, len(self.b) - len(self.cutoffs)])
    rows = jnp.concatenate([frequent, self.clusters])
    first = self._softmax(y, self.first, rows, jnp.concatenate([biases[0], of_clusters]))
    parts, shares = jnp.split(first, self.cutoffs[:1], axis=-1)
    within = [self._softmax(y, widen, table, b) for (table, widen), b in zip(rare, biases[1:])]
    return jnp.concatenate([parts, *(shares[..., i : i + 1] + z for i, z in enumerate(within))], axis=-1)

  def _softmax(
    self, y: Float[Array, "*b d"], widen: Float[Array, "w d"], table: Float[Array, "n w"], b: Float[Array, "n"]
  ) -> Float[Array, "*b n"]:
    """Returns log softmax(E P y + b) in float32."""
    narrow = product("...d,wd->...w", y, widen.astype(y.dtype), jnp.float32).astype(y.dtype)
    narrow = self.drop(narrow, deterministic=not self.has_rng("dropout"))
    return jax.nn.log_softmax(product("...w,nw->...n", narrow, table.astype(y.dtype), jnp.float32) + b)
