"""A batch without rows, such as the last one of a process that has fewer, has outputs and losses of no rows."""

import jax
import jax.numpy as jnp
import pytest

from hybrids import mixer as mixer_lib
from hybrids.head.classifier import Classifier
from hybrids.head.head import Outputs
from hybrids.head.lm import LanguageModel

D, T = 8, 6
# whose reshapes cannot tell a size from an empty array
MIXERS = ("based", "h3", "softmax")


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_has_no_outputs_and_keeps_its_state(name):
  mixer = mixer_lib.build(name, width=D)
  variables = jax.eval_shape(mixer.init, jax.random.key(0), jnp.zeros((1, T, D)))
  x = jax.ShapeDtypeStruct((0, T, D), jnp.bfloat16)
  state = jax.eval_shape(lambda: mixer.init_state(0, T))
  assert jax.tree.leaves(state)
  y = jax.eval_shape(mixer.apply, variables, x)
  assert (y.shape, y.dtype) == (x.shape, x.dtype)
  y, after = jax.eval_shape(lambda v, x, s: mixer.apply(v, x, s, method="prefill"), variables, x, state)
  assert (y.shape, after) == (x.shape, state)
  y, after = jax.eval_shape(lambda v, x, s: mixer.apply(v, x[:, 0], s, method="step"), variables, x, state)
  assert (y.shape, after) == ((0, D), state)


def test_heads_have_a_loss_of_nothing():
  outputs = Outputs(jnp.zeros((0, T, D)), jnp.zeros((0,), jnp.int32), table=jnp.ones((5, D)))
  for head, targets in ((LanguageModel(width=D, vocab=5, chunk=4), (0, T)), (Classifier(width=D, classes=3), (0,))):
    of = lambda head, state, targets=targets: head.loss(
      outputs, state, jnp.zeros(targets, jnp.int32), jnp.zeros(targets)
    )
    (sums, _), _ = head.init_with_output(jax.random.key(0), head.init_state(0), method=of)
    assert {name: [float(part) for part in pair] for name, pair in sums.items()} == {
      "loss": [0, 0],
      "accuracy": [0, 0],
    }
