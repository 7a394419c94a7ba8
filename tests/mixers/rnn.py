"""RNN, and the facts that it shares with LSTM and GRU: each cell is the one of Flax, and its initial values."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from hybrids.mixer import build
from tests.hybrids.filled import filled
from tests.initial import initial

SMALL = {"": {}}
ORACLE = {"": {}, "relu": dict(activation="relu")}
REFUSED = [(dict(activation="gelu"), "activation='gelu'; choose from ['tanh', 'relu']")]

D, T = 6, 9
X = jax.random.normal(jax.random.key(1), (2, T, D))


def count(d):
  """Two square maps and a bias."""
  return 2 * d * d + d


def flax_parameters(p, gates, biased):
  """W, R and bias, gate by gate under Flax's names; `biased` is the prefix under which a gate's bias is found."""
  found = {}
  for i, gate in enumerate(gates):
    columns = slice(i * D, (i + 1) * D)
    found[f"i{gate}"], found[f"h{gate}"] = {"kernel": p["W"][:, columns]}, {"kernel": p["R"][:, columns]}
    found[biased + gate]["bias"] = p["bias"][columns]
  return found


@pytest.mark.parametrize(
  "name, kwargs, cell, gates, biased",
  [
    ("rnn", {}, nn.SimpleCell, "", "i"),
    ("lstm", {}, nn.OptimizedLSTMCell, "ifgo", "h"),
    ("gru", dict(reset_gate="after"), nn.GRUCell, "rzn", "i"),
  ],
)
def test_cells_are_those_of_flax(name, kwargs, cell, gates, biased):
  module = build(name, width=D, **kwargs)
  v = filled(module, X)
  p = v["params"]
  theirs = flax_parameters(p, gates or [""], biased)
  if name == "gru":
    theirs["hn"]["bias"] = p["b"]
  y = jax.jit(lambda x: nn.RNN(cell(D)).apply({"params": {"cell": theirs}}, x))(X)
  np.testing.assert_allclose(jax.jit(module.apply)(v, X), y, atol=1e-5)


@pytest.mark.parametrize("name, gates", [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_every_recurrent_matrix_starts_orthogonal(name, gates):
  R = initial(build(name, width=D))["R"]
  for block in np.split(np.asarray(R), gates, axis=1):
    np.testing.assert_allclose(block @ block.T, np.eye(D), atol=1e-5)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_input_matrices_start_with_variance_one_over_the_width(name):
  p = initial(build(name, width=64))
  np.testing.assert_allclose(np.mean(np.square(p["W"])), 1 / 64, rtol=0.1)
