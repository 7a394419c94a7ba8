"""Cross entropy against its definition, and sums that make averages exact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.head import cross_entropy as ce
from hybrids.head.regression import Regression
from training import losses

cross_entropy = jax.jit(ce.cross_entropy)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)).astype(np.float32)
TARGETS = RNG.integers(0, 5, (3, 4)).astype(np.int32)
WEIGHTS = np.array([[1, 0, 2, 1], [0, 0, 0, 0], [0.5, 1, 1, 0]], np.float32)


def by_hand(logits, targets, weights):
  logits = logits.astype(np.float64)
  nats = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  hits = logits.argmax(-1) == targets
  return (weights * nats).sum() / weights.sum(), (weights * hits).sum() / weights.sum()


def test_cross_entropy_is_its_definition():
  values = losses.averages(
    cross_entropy(LOGITS, TARGETS, WEIGHTS), ("accuracy", "bits_per_byte", "perplexity", "error")
  )
  nats, right = by_hand(LOGITS, TARGETS, WEIGHTS)
  expected = {
    "loss": nats,
    "accuracy": right,
    "bits_per_byte": nats / np.log(2),
    "perplexity": np.exp(nats),
    "error": 1 - right,
  }
  assert values == pytest.approx(expected, rel=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
  total, weight = cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), TARGETS, WEIGHTS)["loss"]
  assert total.dtype == weight.dtype == jnp.float32


def test_places_of_weight_zero_reach_nothing():
  bad = jnp.where(jnp.asarray(WEIGHTS)[..., None] > 0, LOGITS, jnp.nan)
  loss = lambda logits: cross_entropy(logits, TARGETS, WEIGHTS)["loss"][0]
  value, gradient = jax.value_and_grad(loss)(bad)
  assert float(value) == float(loss(LOGITS))
  assert np.isfinite(gradient).all()
  assert (np.asarray(gradient)[WEIGHTS == 0] == 0).all()


def test_sums_of_uneven_batches_make_the_average_of_all():
  parts = [cross_entropy(LOGITS[i:j], TARGETS[i:j], WEIGHTS[i:j]) for i, j in ((0, 2), (2, 3))]
  assert losses.averages(losses.add(*parts), ())["loss"] == pytest.approx(by_hand(LOGITS, TARGETS, WEIGHTS)[0])


def test_unknown_names_list_the_choices():
  with pytest.raises(ValueError, match="'f1'.*accuracy.*perplexity"):
    losses.averages(cross_entropy(LOGITS, TARGETS, WEIGHTS), ("f1",))


def test_determination_is_exact_where_the_mean_is_large():
  rng, head = np.random.default_rng(1), Regression(width=1, outputs=2)
  targets = rng.normal(1e5, 10, (6, 16, 2)).astype(np.float32)
  answers = (targets + rng.normal(0, 5, targets.shape)).astype(np.float32)
  weights = (rng.random((6, 16)) < 0.8).astype(np.float32)
  weights[0] = 0
  targets[0] = np.nan
  score = jax.jit(lambda *batch: head.score(*batch))
  parts = [score(*batch) for batch in zip(answers, targets, weights)]
  y, guess, w = (np.asarray(z[1:], float).reshape(-1, *z.shape[2:]) for z in (targets, answers, weights))
  y, guess = y[w > 0], guess[w > 0]
  expected = np.mean(1 - ((y - guess) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0))
  wide = [jax.tree.map(lambda z: np.asarray(z, np.float64), part) for part in parts]
  for sums in (parts, wide):
    found = losses.averages(functools.reduce(losses.add, sums), ("r2",))["r2"]
    assert found == pytest.approx(expected, abs=2e-3)
