"""Gated DeltaProduct: a token writes several keys and values, one after the other. State: fixed.

Siems, Carstensen, Zela, Hutter, Pontil & Grazzi 2025, arXiv:2502.10297. Theirs: n_h -> n, S -> S^T, alpha -> a.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention.recurrent.gated_delta_net import GatedDeltaNet
from layers.mixer import Where
from layers.sizes import at_least_one


class GatedDeltaProduct(GatedDeltaNet):
  """S <- a_t S_{t-1};  S <- S + beta_tj k_tj (v_tj - S^T k_tj)^T for j = 1 ... n;  S_t = S,  y_t = S_t^T q_t / sqrt(k)

  for each head, with n keys, values and step sizes of each token; all else is `gated_delta_net`'s. A token multiplies
  the state by a_t prod_j (I - beta_tj k_tj k_tj^T), a product of n generalised Householder matrices. With beta up to 2,
  which is the default, each can be a mirror, and two of them any rotation of a plane.

  Attributes:
    products: n.
    decay: whether there is an a_t; without one this is DeltaProduct.
  """

  products: int = 2
  negative_eigenvalues: bool = True
  decay: bool = True

  @property
  def updates(self) -> int:
    return self.products

  @property
  def decays(self) -> bool:
    return self.decay

  @nn.nowrap
  def rule(
    self,
    q: Float[Array, "b t h k"],
    k: Float[Array, "b t m k"],
    v: Float[Array, "b t m p"],
    beta: Float[Array, "b t m"],
    log_a: Float[Array, "b t h"] | None,
    S: Float[Array, "b h k p"],
    where: Where,
  ) -> tuple[Float[Array, "b t h p"], Float[Array, "b h k p"]]:
    """Runs the n updates of a token as n tokens: the first one decays, and the last one is read."""
    b, t, h, _ = q.shape
    n = self.products
    each = lambda z: z.reshape(b, t * n, h, *z.shape[3:])
    alone = lambda z, place: (
      jnp.zeros((b, t, n, *z.shape[2:]), z.dtype).at[:, :, place].set(z).reshape(b, t * n, *z.shape[2:])
    )
    log_a = None if log_a is None else alone(log_a, 0)
    reset = None if where.reset is None else alone(where.reset, 0)
    lengths = None if where.lengths is None else where.lengths * n
    y, S = super().rule(alone(q, -1), each(k), each(v), each(beta), log_a, S, Where(reset, lengths))
    return y.reshape(b, t, n, h, -1)[:, :, -1], S

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "products")
    super().check()
