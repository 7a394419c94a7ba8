"""ReverseComplement: small sizes, parameter count, refusals; a sequence and its reverse complement give one answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.model import Model
from hybrids.wrap.reverse_complement import ReverseComplement
from tests import mixers
from tests.hybrids.filled import filled

SMALL = {"": dict(mixer=dict(name="mamba", state=4, dt_rank=2))}
ORACLE = {}
REFUSED = [
  (dict(mixer=dict(name="mlp"), merge="mean"), "ReverseComplement: merge='mean'; choose from ['both', 'sum']"),
  (dict(mixer=dict(name="mlp"), width=3), "ReverseComplement: width=3; it must be even"),
  (dict(mixer=dict(name="rwkv7")), "mixer 'rwkv7' offers arrays to later layers"),
]
# A, C, G, T and another letter; lengths of the two rows
BASES = jnp.array([[1, 2, 2, 4, 3, 5, 1], [4, 4, 1, 3, 2, 0, 0]])
LENGTHS = jnp.array([7, 5])


def count(d, mixer, merge="both"):
  return mixers.count(width=d // 2, **mixer)


def turned(x, lengths):
  """Each row reversed within its length."""
  return jnp.stack([jnp.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(x, lengths)])


def test_the_reverse_complement_of_the_inputs_is_that_of_the_outputs():
  module = ReverseComplement(width=6, mixer=dict(name="gru"))
  x = jax.random.normal(jax.random.key(0), (2, 7, 6))
  variables = filled(module, x)
  y = module.apply(variables, x, lengths=LENGTHS)
  other = module.apply(variables, turned(x, LENGTHS)[..., ::-1], lengths=LENGTHS)
  np.testing.assert_array_equal(turned(other, LENGTHS)[..., ::-1], y)


@functools.cache
def classifier():
  stack = dict(name="stack", pattern="m", depth=2, letters=dict(m=dict(name="gru")))
  model = Model(
    vocab=6,
    classes=3,
    width=8,
    embed=dict(name="strands"),
    body=dict(name="reverse_complement", mixer=stack, merge="sum"),
    head=dict(name="classifier", pool="mean"),
  )
  return model, filled(model, BASES)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_classifier_answers_alike_for_a_sequence_and_its_reverse_complement(lengths):
  model, variables = classifier()
  complement = jnp.where((BASES >= 1) & (BASES <= 4), 5 - BASES, BASES)
  other = turned(complement, [7, 7] if lengths is None else lengths)
  logits = model.apply(variables, BASES, lengths=lengths)
  np.testing.assert_allclose(model.apply(variables, other, lengths=lengths), logits, rtol=1e-6, atol=1e-6)
  assert np.abs(np.diff(logits, axis=0)).max() > 1e-3
