"""Activations have one name each: GELU two, by erf and by tanh, wherever a field is called so."""

import ast
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from layers import glu
from layers.activations import ACTIVATIONS
from ssm.lti import dense_io
from tests import sources

X = np.linspace(-6, 6, 1201)
EXACT = X * 0.5 * (1 + np.vectorize(math.erf)(X / math.sqrt(2)))
TANH = X * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)))
GELU = {"gelu": EXACT, "gelu_tanh": TANH}


@pytest.mark.parametrize("name", GELU)
def test_gelu_is_exact_and_gelu_tanh_its_approximation(name):
  for function in (
    ACTIVATIONS[name],
    lambda x: glu.activate(x, name, None),
    lambda x: dense_io.activate(name, x, None, None),
  ):
    np.testing.assert_allclose(function(jnp.float32(X)), GELU[name], atol=2e-6)
  assert 2e-4 < abs(EXACT - TANH).max() < 5e-4


def outputs(mixer, **fields):
  layer = build(mixer, width=8, **fields)
  x = 3 * jax.random.normal(jax.random.key(1), (1, 3, 8))
  return layer.apply(layer.init(jax.random.key(0), x), x)


def test_a_default_is_what_it_was_before_there_were_two_names():
  same = functools.partial(np.testing.assert_array_equal)
  same(outputs("mlp"), outputs("mlp", activation="gelu_tanh"))
  assert abs(outputs("mlp") - outputs("mlp", activation="gelu")).max() > 1e-6


@pytest.mark.parametrize("mixer,fields", [("mlp", {}), ("gated_mlp", {}), ("s5", {"state": 4}), ("s4d", {"state": 4})])
def test_both_names_are_offered_and_differ(mixer, fields):
  exact, tanh = (outputs(mixer, activation=name, **fields) for name in GELU)
  assert 0 < abs(exact - tanh).max() < 2e-3


def test_there_is_one_table():
  """Whoever wants GELU says which of the two: no file but the table's calls jax.nn.gelu or flax.linen.gelu."""
  for file in sources.python_files("kernels", "layers", "ssm", "attention", "hybrids", "training", "inference"):
    for node in ast.walk(sources.parse(file)):
      if isinstance(node, ast.Attribute) and node.attr == "gelu":
        assert sources.relative(file) == "layers/activations.py", f"{sources.relative(file)}:{node.lineno}"
