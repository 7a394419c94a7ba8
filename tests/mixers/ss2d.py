"""SS2D: small sizes, parameter count, oracle, refusals."""

import jax
import jax.numpy as jnp
import pytest

from ssm.selective.ss2d import SS2D

SMALL = {"": dict(state=2, dt_rank=2)}
ORACLE = {
  "": (dict(state=2, dt_rank=2), dict(columns=7)),
  "biases": (dict(taps=5, inner=6, bias=True, conv_bias=True), dict(columns=7)),
}
SLOW = ("biases",)
REFUSED = [
  (dict(state=0), "state=0; it must be at least 1"),
  (dict(taps=4), "SS2D: taps=4; the pixel stands in the middle"),
  (dict(dt_min=1.0), "dt_min=1.0, dt_max=0.1"),
]
TRAINED = {"slow": {"paths/A_log"}, "undecayed": {"conv/kernel"}}


def count(d, state, dt_rank):
  """In, out; convolution; four paths with A and D, delta, B and C, dt with bias; norm."""
  e = 2 * d
  return 2 * d * e + 9 * e + 4 * e * (state + 1 + dt_rank + 2 * state + dt_rank + 1) + 2 * e


def test_sides_that_do_not_match_the_sequence_are_refused():
  with pytest.raises(ValueError, match="SS2D: rows=4 does not divide the 6 tokens of the sequence"):
    jax.eval_shape(SS2D(width=4, rows=4).init, jax.random.key(0), jnp.zeros((1, 6, 4)))
