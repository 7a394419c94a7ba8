"""MoE: small sizes, parameter count, oracle, refusals; what it sows, and experts that are all chosen."""

import jax
import jax.numpy as jnp
import numpy as np

from hybrids.body.stack import Stack
from hybrids.channel.moe import MoE
from hybrids.mixer import build
from tests.hybrids.filled import filled

KIMI = dict(scores="sigmoid", selection_bias=True, renormalize=True, renormalize_eps=1e-20, scale=2.5, shared=5)
SMALL = {
  "": dict(experts=3, top_k=2, inner=4, scores="softmax_of_chosen", router_z=0.1),
  "kimi": dict(experts=8, top_k=2, inner=4, groups=4, top_groups=2, **KIMI),
}
ORACLE = {
  "": dict(experts=3, top_k=2, inner=4),
  "of chosen": (dict(experts=3, top_k=1, inner=4, scores="softmax_of_chosen"), dict(renormalize=True)),
  "renormalized": dict(experts=4, top_k=2, inner=3, renormalize=True),
  "qwen3_next": dict(experts=5, top_k=2, inner=3, renormalize=True, shared=7, shared_gate=True),
  "kimi": (dict(experts=8, top_k=3, inner=3, groups=4, top_groups=2, **KIMI), dict(score="sigmoid", eps=1e-20)),
  "nemotron": (
    dict(experts=6, top_k=2, inner=3, latent=5, gated=False, activation="relu2", **KIMI),
    dict(score="sigmoid", eps=1e-20),
  ),
  "zaya": dict(experts=4, top_k=2, inner=3, selection_bias=True, skip_expert=True, router_size=5),
  "lfm2": (
    dict(experts=4, top_k=2, inner=3, scores="sigmoid", selection_bias=True, renormalize=True, renormalize_eps=1e-6),
    dict(score="sigmoid", eps=1e-6),
  ),
}
SIDE = {"zaya": {"router": lambda b, t: np.random.default_rng(0).standard_normal((b, t, 5))}}
SLOW = ("renormalized", "of chosen", "lfm2")
REFUSED = [
  (dict(experts=2, top_k=3), "top_k=3 of experts=2"),
  (dict(top_k=0), "top_k=0"),
  (dict(inner=0), "inner=0"),
  (dict(scores="tanh"), "scores='tanh'; choose from"),
  (dict(activation="glu"), "activation='glu'; choose from"),
  (dict(skip_expert=True, groups=2), "skip_expert=True with groups=2"),
  (dict(router_size=0), "router_size=0; it must be at least 1"),
  (dict(groups=3), "groups=3 do not divide experts=8"),
  (dict(groups=4, top_groups=5), "top_groups=5 of groups=4"),
  (dict(groups=4, top_groups=1, top_k=3), "experts enough in them for top_k=3"),
  (dict(renormalize_eps=-1.0), "renormalize_eps=-1.0; it must be at least 0"),
  (dict(bias_rate=-1.0), "bias_rate=-1.0; it must be at least 0"),
  (dict(shared_gate=True), "give shared, its channels"),
]


def count(d, experts=8, inner=24, shared=0, **_):
  """The router, three matrices an expert, and three of the shared one."""
  return d * experts + 3 * d * (experts * inner + shared)


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


def test_the_selection_bias_chooses_and_does_not_weigh():
  module = MoE(width=4, experts=4, top_k=2, inner=2, scores="sigmoid", selection_bias=True)
  x = jax.random.normal(jax.random.key(0), (1, 6, 4))
  params = filled(module, x)["params"]

  @jax.jit
  def run(bias):
    variables = {"params": params, "buffers": {"selection_bias": bias}}
    y, sown = module.apply(variables, x, mutable=["intermediates"])
    return y, sown["intermediates"]["share"][0]

  y, share = run(jnp.array([0.0, 9.0, 0.0, 9.0]))
  np.testing.assert_allclose(share, [0, 0.5, 0, 0.5])
  score = 1 / (1 + np.exp(-x @ params["router"]))
  outputs = [run_expert(params, x, e) for e in (1, 3)]
  np.testing.assert_allclose(y, score[..., 1:2] * outputs[0] + score[..., 3:] * outputs[1], rtol=2e-4, atol=1e-5)


def test_in_training_the_selection_bias_evens_out_the_choices():
  """A router that wants one expert alone; what the bias does to it in a hundred calls, but not where it is fixed."""
  module = MoE(width=4, experts=4, top_k=1, inner=2, scores="sigmoid", selection_bias=True, bias_rate=0.02)
  x = jax.random.normal(jax.random.key(0), (8, 16, 4)).at[..., 0].set(1.0)
  kept = filled(module, x)
  kept["params"]["router"] = kept["params"]["router"].at[0].set(jnp.array([3.0, 0, 0, 0]))
  largest = lambda sown: sown["intermediates"]["share"][0].max()

  @jax.jit
  def train(buffers, _):
    _, changed = module.apply({**kept, "buffers": buffers}, x, mutable=["buffers", "intermediates"])
    return changed["buffers"], largest(changed)

  after, shares = jax.lax.scan(train, kept["buffers"], None, length=100)
  assert shares[0] > 0.9
  assert shares[-1] < 0.4
  lengths = jnp.zeros(8, int)
  _, none = jax.jit(lambda x: module.apply({**kept, "buffers": after}, x, lengths=lengths, mutable=["buffers"]))(x)
  np.testing.assert_array_equal(none["buffers"]["selection_bias"], after["selection_bias"])


def run_expert(params, x, e):
  gate = x @ params["gate_proj"][e]
  return (gate / (1 + np.exp(-gate)) * (x @ params["in_proj"][e])) @ params["out_proj"][e]


def test_in_the_padding_outputs_are_zero_and_no_expert_is_chosen():
  """A shared expert with gate, too: the padding reads zeros. A token of the padding changes no other."""
  module = MoE(width=4, experts=3, top_k=1, inner=2, shared=3, shared_gate=True, balance=1.0)
  x = jax.random.normal(jax.random.key(0), (2, 5, 4))
  variables = filled(module, x)
  run = jax.jit(lambda x: module.apply(variables, x, lengths=jnp.array([5, 2]), mutable=["losses", "intermediates"]))
  y, sown = run(x)
  other, same = run(x.at[1, 2:].set(jnp.nan))
  assert not np.any(y[1, 2:])
  assert np.all(np.abs(y[0]).max(-1) > 0)
  np.testing.assert_array_equal(y, other)
  jax.tree.map(np.testing.assert_array_equal, sown, same)


def test_a_router_reads_the_vector_of_the_layer_before():
  """In a stack's loop as by hand, and token by token; between the layers with routers stand others."""
  moe = dict(name="moe", experts=4, top_k=1, inner=2, router_size=3, selection_bias=True, skip_expert=True)
  letters = {"e": dict(mixer=moe, scaled=True), "m": dict(name="mlp", inner=4)}
  stack = Stack(width=4, depth=6, pattern="em", letters=letters)
  assert stack.SIDE == ()
  x = jax.random.normal(jax.random.key(0), (2, 5, 4))
  kept = filled(stack, x)

  @jax.jit
  def by_hand(x):
    own = stack.apart(kept)
    before = jnp.zeros((2, 5, 3))
    norm = lambda x, p: p["scale"] * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    for i in map(str, range(3)):
      p, module = own["params"]["e"][i], build(width=4, **moe)
      variables = {"params": p["mixer"], "buffers": own["buffers"]["e"][i]["mixer"]}
      n = norm(x, p["norm"])
      y, new = module.apply(variables, n, side={"router": before}, mutable=["carried"])
      before = new["carried"]["router"]
      x = (x + p["skip_bias"]) * p["skip_scale"] + (y + p["output_bias"]) * p["output_scale"]
      p = own["params"]["m"][i]
      x = x + build("mlp", width=4, inner=4).apply({"params": p["mixer"]}, norm(x, p["norm"]))
    return norm(x, kept["params"]["final_norm"])

  y = jax.jit(stack.apply)(kept, x)
  np.testing.assert_allclose(y, by_hand(x), rtol=1e-4, atol=1e-5)
  assert np.abs(y).max() > 0.1
  step = jax.jit(lambda x: stack.apply(stack.apart(kept), x, stack.init_state(2, 1), method="step")[0])
  np.testing.assert_allclose(step(x[:, 0]), y[:, 0], rtol=1e-4, atol=1e-5)
  moved = jax.tree.map(lambda leaf: leaf, kept)
  moved["params"]["e"]["mixer"]["router_mlp"]["carry_scale"] += 1.0
  assert np.abs(jax.jit(stack.apply)(moved, x) - y).max() > 1e-4
