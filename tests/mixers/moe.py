"""MoE: small sizes, parameter count, oracle, refusals; what it sows, and experts that are all chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.channel.moe import MoE

SMALL = {"": dict(experts=3, top_k=2, inner=4, scores="softmax_of_chosen", router_z=0.1)}
ORACLE = {
  "": (dict(experts=3, top_k=2, inner=4), dict(top_k=2)),
  "of chosen": (dict(experts=3, top_k=1, inner=4, scores="softmax_of_chosen"), dict(top_k=1, renormalize=True)),
  "renormalized": (dict(experts=4, top_k=2, inner=3, renormalize=True), dict(top_k=2, renormalize=True)),
}
SLOW = ("renormalized",)
REFUSED = [
  (dict(experts=2, top_k=3), "top_k=3 of experts=2"),
  (dict(top_k=0), "top_k=0"),
  (dict(inner=0), "inner=0"),
  (dict(scores="sigmoid"), "scores='sigmoid'; choose from"),
  (dict(activation="glu"), "activation='glu'; choose from"),
]


def count(d, experts=8, inner=24, **_):
  """The router, and three matrices an expert."""
  return d * experts + 3 * experts * d * inner


def test_losses_are_those_of_the_tokens_that_are_no_padding():
  module = MoE(width=4, experts=3, top_k=1, inner=2, balance=0.5, router_z=0.25)
  x = jax.random.normal(jax.random.key(0), (2, 5, 4)).at[1, 2:].set(jnp.nan)
  variables = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, 1, 4)))
  variables = {"params": variables["params"]}
  _, sown = jax.jit(lambda x: module.apply(variables, x, lengths=jnp.array([5, 2]), mutable=["losses"]))(x)
  tokens = np.concatenate([x[0], x[1, :2]])
  logits = tokens @ np.asarray(variables["params"]["router"].value)
  probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  shares = np.bincount(logits.argmax(-1), minlength=3) / len(tokens)
  balance = 0.5 * 3 * np.sum(shares * probability.mean(0))
  np.testing.assert_allclose(sown["losses"]["balance"][0], balance, rtol=1e-5)
  np.testing.assert_allclose(
    sown["losses"]["router_z"][0], 0.25 * np.mean(np.log(np.exp(logits).sum(-1)) ** 2), rtol=1e-5
  )
