"""The adaptive embedding and softmax, by the papers' equations in NumPy, one token after the other."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.model import build_model
from hybrids.objective import measure
from inference.context import check_model
from tests.hybrids.filled import filled

V, T, WIDTH, CUTOFFS = 11, 6, 8, (3, 5, 9)
TASK = SimpleNamespace(head="lm", vocab=V, features=None, classes=None, length=T)
BODY = dict(name="stack", pattern="g", depth=1, letters={"g": dict(name="min_gru")})
EMBED = dict(name="adaptive", cutoffs=CUTOFFS, div=2, scale=3.0)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (2, T)))


def model(embed=EMBED, **head):
  return build_model(TASK, width=WIDTH, body=BODY, embed=embed, head={"name": "adaptive_softmax", **head})


def clusters(params):
  """Returns the first token, the table and the map of each cluster."""
  embed = params["embed"]
  of = lambda i: (np.asarray(embed[f"table_{i}"]), np.asarray(embed[f"widen_{i}"]))
  return [(low, *of(i)) for i, low in enumerate((0, *CUTOFFS))]


def test_a_vector_is_that_of_the_token_in_its_cluster_made_wide():
  module = model()
  kept = filled(module, TOKENS)
  embedding = module._embed(parent=None)
  params = {"params": kept["params"]["embed"]}
  x = embedding.apply(params, jnp.arange(V)[None], jnp.zeros(1, jnp.int32)).x[0]
  assert [table.shape for _, table, _ in clusters(kept["params"])] == [(3, 8), (2, 4), (4, 2), (2, 1)]
  for token in range(V):
    low, table, widen = [cluster for cluster in clusters(kept["params"]) if cluster[0] <= token][-1]
    np.testing.assert_allclose(x[token], 3.0 * table[token - low] @ widen, rtol=1e-5)
  outside = embedding.apply(params, jnp.array([[-1, V]]), jnp.zeros(1, jnp.int32)).x
  assert np.isnan(outside).all()


def by_hand(params, y):
  """Returns the log-probability of each token after the output y of the body."""
  head = jax.tree.map(np.asarray, params["head"])
  softmax = lambda z: z - np.log(np.exp(z).sum())
  found = []
  for i, (low, table, widen) in enumerate(clusters(params)):
    if i == 0:
      rows = np.concatenate([table, head["clusters"]])
      l = softmax(rows @ head["first"] @ y + np.concatenate([head["b"][: CUTOFFS[0]], head["b"][V:]]))
      found, of_clusters = list(l[: CUTOFFS[0]]), l[CUTOFFS[0] :]
    else:
      found += list(of_clusters[i - 1] + softmax(table @ widen @ y + head["b"][low : low + len(table)]))
  return np.array(found)


def test_probabilities_are_those_of_the_paper_and_sum_to_one():
  module = model()
  kept = filled(module, TOKENS)
  y = module.apply(kept, TOKENS, method="_read").y
  answers = jax.jit(module.apply)(kept, TOKENS)
  np.testing.assert_allclose(np.exp(answers).sum(axis=-1), 1, rtol=1e-5)
  for row in range(2):
    for t in range(T):
      np.testing.assert_allclose(answers[row, t], by_hand(kept["params"], np.asarray(y[row, t])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("chunk", [3, 2048])
def test_the_loss_is_of_the_targets_and_reaches_every_parameter(chunk):
  module = model(chunk=chunk)
  kept = filled(module, TOKENS)
  # every token stands once among the targets
  targets = jnp.arange(2 * T).reshape(2, T) % V
  batch = {"inputs": TOKENS, "targets": targets, "weights": jnp.ones((2, T)).at[1, 5].set(0.0)}
  answers = module.apply(kept, TOKENS)
  want = -np.take_along_axis(np.asarray(answers), np.asarray(targets)[..., None], axis=-1).reshape(-1)[: 2 * T - 1]
  value, grads = jax.value_and_grad(lambda p: measure(module, {"params": p}, batch)[0])(kept["params"])
  np.testing.assert_allclose(value, want.mean(), rtol=1e-5)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("embed, head", [(dict(EMBED, dropout=0.5), {}), (EMBED, dict(dropout=0.5))])
def test_dropout_changes_training_alone(embed, head):
  module = model(embed=embed, **head)
  kept = filled(module, TOKENS)
  plain = module.apply(kept, TOKENS)
  np.testing.assert_array_equal(plain, model().apply(kept, TOKENS))
  rngs = {"dropout": jax.random.key(1)}
  assert not np.allclose(plain, module.apply(kept, TOKENS, rngs=rngs))
  # in the loss by chunks, too
  batch = {"inputs": TOKENS, "targets": TOKENS, "weights": jnp.ones((2, T))}
  losses = [measure(model(embed=embed, chunk=4, **head), kept, batch, **kwargs)[0] for kwargs in ({}, {"rngs": rngs})]
  assert np.isfinite(losses).all()
  assert abs(losses[0] - losses[1]) > 1e-4


def test_a_model_with_it_generates():
  check_model(model())


@pytest.mark.parametrize(
  "embed, head, reason",
  [
    (dict(EMBED, cutoffs=(5, 3)), {}, r"embed.cutoffs=\(5, 3\); they must rise from above 0 to below vocab=11"),
    (dict(EMBED, cutoffs=(3, 11)), {}, r"embed.cutoffs=\(3, 11\)"),
    (dict(EMBED, cutoffs=5), {}, "embed 'adaptive': cutoffs=5 must be of type sequence of int"),
    (dict(EMBED, div=4), {}, r"embed.div=4; it must be .* \(width=8\)"),
    (dict(EMBED, dropout=1.0), {}, r"embed.dropout=1.0; it must be from 0 to below 1"),
    (dict(name="tokens"), {}, "head.name='adaptive_softmax' shares the clusters of embed.name='adaptive'; set both"),
    (EMBED, dict(dropout=-0.1), "head.dropout=-0.1; it must be from 0 to below 1"),
    (EMBED, dict(name="lm"), "head.tie=True shares the table of tokens of the head's width, which this model lacks"),
  ],
)
def test_what_does_not_fit_is_named(embed, head, reason):
  with pytest.raises(ValueError, match=reason):
    model(embed=embed, **head)
