"""The head that also predicts the token after the next: its loss by hand, and what it leaves as it is."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from hybrids.model import build_model
from hybrids.objective import measure
from inference.context import check_model
from tests.hybrids.filled import filled

V, T = 7, 8
TASK = SimpleNamespace(head="lm", vocab=V, features=None, classes=None, length=T)
BODY = dict(name="stack", pattern="g", depth=1, letters={"g": dict(name="min_gru")})
BLOCK = dict(name="stack", pattern="g", depth=1, letters={"g": dict(name="min_gru")})


def model(**head):
  return build_model(TASK, width=4, body=BODY, head=head)


def batch():
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, V, (3, T + 1))
  reset = np.zeros((3, T), bool)
  reset[:, 0] = reset[1, 4] = True
  weights = np.ones((3, T), np.float32)
  weights[2, 5:] = 0
  weights[1, 3] = 0  # the last token of a document predicts nothing
  return jax.tree.map(jnp.asarray, dict(inputs=tokens[:, :-1], targets=tokens[:, 1:], weights=weights, reset=reset))


def test_its_loss_is_that_of_the_token_after_the_next_within_a_document():
  module, data = model(name="multi_token", block=BLOCK, weight=0.5), batch()
  kept = filled(module, data["inputs"])
  head, table = kept["params"]["head"], kept["params"]["embed"]["embedding"]

  @jax.jit
  def by_hand(kept):
    y = module.apply(kept, data["inputs"], reset=data["reset"], method="_read").y
    norm = lambda x, p: p["scale"] * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    z = jnp.concatenate([norm(y, head["y_norm"]), norm(table[data["targets"]], head["e_norm"])], axis=-1)
    z = z @ head["in_proj"]["kernel"]
    z = build(**BLOCK, width=4).apply({"params": head["block"]}, z, reset=data["reset"])
    return jax.nn.log_softmax(z @ table.T)

  log_p, nats = by_hand(kept), []
  for row in range(3):
    for t in range(T - 1):
      alone = data["reset"][row, t + 1]
      if not alone and data["weights"][row, t] and data["weights"][row, t + 1]:
        nats.append(-log_p[row, t, data["targets"][row, t + 1]])
  value, sums, _, _ = jax.jit(lambda kept: measure(module, kept, data))(kept)
  total, weight = sums["losses/ahead"]
  np.testing.assert_allclose(total / weight, 0.5 * np.mean(nats), rtol=1e-4)
  np.testing.assert_allclose(value, sums["loss"][0] / sums["loss"][1] + 0.5 * np.mean(nats), rtol=1e-4)
  assert len(nats) == 3 * (T - 1) - 1 - 1 - 3


def test_generation_is_that_of_the_language_model():
  both, data = (model(name="multi_token", block=BLOCK), model(name="lm")), batch()
  kept = filled(both[0], data["inputs"])
  plain = {"params": {name: tree for name, tree in kept["params"].items() if name != "head"}}
  y, want = (jax.jit(module.apply)(variables, data["inputs"]) for module, variables in zip(both, (kept, plain)))
  np.testing.assert_allclose(y, want, rtol=1e-6)
  check_model(both[0])


@pytest.mark.parametrize(
  "head, reason",
  [
    (dict(block=dict(name="stakc")), "no mixer is called 'stakc'"),
    (dict(block=BLOCK, weight=-1.0), "MultiToken: weight=-1.0; it must be at least 0"),
  ],
)
def test_what_does_not_fit_is_named(head, reason):
  with pytest.raises(ValueError, match=reason):
    model(name="multi_token", **head)
