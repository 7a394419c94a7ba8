"""Which experts of a mixture each token goes to, with which weights, and the losses that keep them in balance."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels import dispatch, sequence_parallel
from layers import Dense, RMSNorm, param
from layers.activations import gelu

SCORES = ("softmax", "softmax_of_chosen", "sigmoid")


class Routes(NamedTuple):
  """The experts of each token, their weights, and the share of its probability that each of all experts has."""

  chosen: Int[Array, "*b k"]
  weights: Float[Array, "*b k"]
  probability: Float[Array, "*b e"]


def route(
  logits: Float[Array, "*b e"],
  bias: Float[Array, "e"] | None,
  *,
  scores: str,
  top_k: int,
  groups: int,
  top_groups: int,
  renormalize: bool,
  renormalize_eps: float,
  scale: float,
) -> Routes:
  """Chooses the `top_k` experts of the largest scores plus bias, and weighs them by their scores without it.

  With groups (DeepSeek-AI 2024, arXiv:2412.19437, sec. 2.1.2) only the experts of the `top_groups` best ones are chosen
  from; a group is as good as the sum of its two best experts.
  """
  squash = jax.nn.sigmoid if scores == "sigmoid" else jax.nn.softmax
  score = squash(logits)
  wish = jax.lax.stop_gradient(score if bias is None else score + bias)

  def choose(wish: Array) -> tuple[Array]:
    return (jax.lax.top_k(_best_groups(wish, groups, top_groups) if top_groups < groups else wish, top_k)[1],)

  # each device for its own tokens: XLA would have all of them everywhere
  axes = "b t x" if wish.ndim == 3 else "b x"
  (chosen,) = dispatch.shard(choose, (axes,), (axes,), sequence_parallel.BY_TIME)(wish)
  pick = lambda z: jnp.take_along_axis(z, chosen, axis=-1)
  weights = jax.nn.softmax(pick(logits), axis=-1) if scores == "softmax_of_chosen" else pick(score)
  if renormalize:
    weights = weights / (jnp.sum(weights, axis=-1, keepdims=True) + renormalize_eps)
  probability = score / jnp.sum(score, axis=-1, keepdims=True) if scores == "sigmoid" else score
  return Routes(chosen, weights * scale, probability)


def _best_groups(wish: Float[Array, "*b e"], groups: int, top_groups: int) -> Float[Array, "*b e"]:
  """Returns the scores with -inf for experts outside the best groups."""
  by_group = wish.reshape(*wish.shape[:-1], groups, -1)
  best, _ = jax.lax.top_k(by_group, min(2, by_group.shape[-1]))
  _, kept = jax.lax.top_k(jnp.sum(best, axis=-1), top_groups)
  mask = jnp.any(jax.nn.one_hot(kept, groups, dtype=bool), axis=-2)
  return jnp.where(mask[..., None], by_group, -jnp.inf).reshape(wish.shape)


class Use(NamedTuple):
  """How evenly the experts are used, as means over the tokens that are no padding."""

  share: Float[Array, "e"]  # of the choices that fall on each expert
  balance: Float[Array, ""]  # 1 where choices and probabilities are spread evenly, up to the number of experts
  router_z: Float[Array, ""]


def use(logits: Float[Array, "b t e"], routes: Routes, here: Bool[Array, "b t"]) -> Use:
  """balance = e · Σ_i share_i P_i with P the mean probability, router_z = mean(log(Σ exp(logits))²).

  Fedus et al. 2022, arXiv:2101.03961, eqs. (4) to (6); Zoph et al. 2022, arXiv:2202.08906, eq. (5).
  """
  experts, top_k = logits.shape[-1], routes.chosen.shape[-1]
  n = jnp.maximum(jnp.sum(here), 1)
  mean = lambda z: jnp.sum(jnp.where(here[..., None], z, 0), axis=(0, 1)) / n
  share = mean(jnp.sum(jax.nn.one_hot(routes.chosen, experts, dtype=logits.dtype), axis=-2)) / top_k
  squares = jnp.square(jax.nn.logsumexp(logits, axis=-1, keepdims=True))
  return Use(share, experts * jnp.sum(share * mean(routes.probability)), mean(squares)[0])


class CarriedRouter(nn.Module):
  """r = W x + b + a * r_before, and the logits of a perceptron of two hidden layers on norm(r), as in Zaya.

  Departs: the first layer has an `a` too, which nothing reads, as r_before is 0 there.

  Attributes:
    choices: the number of logits.
    size: of r, and of both hidden layers.
    eps: of the norm.
  """

  choices: int
  size: int
  eps: float

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b d"], before: Float[Array, "*b r"]
  ) -> tuple[Float[Array, "*b e"], Float[Array, "*b r"]]:
    """Returns the logits, and r for the next router."""
    inside = lambda name: Dense(self.size, use_bias=True, axes=(None, None), name=name)
    a = param(self, "carry_scale", nn.initializers.ones, (self.size,), (None,))
    r = Dense(self.size, use_bias=True, axes=("embed", None), name="down_proj")(x) + a.astype(x.dtype) * before
    z = RMSNorm(eps=self.eps, axis=None, name="norm")(r)
    z = gelu(inside("second")(gelu(inside("first")(z))))
    return Dense(self.choices, axes=(None, None), name="out_proj")(z), r
