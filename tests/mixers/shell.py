"""Shell: small sizes, parameter count, refusals; the blocks around a mixer, each of which is its equation."""

import jax
import numpy as np
import pytest

from hybrids.shells import Shell
from tests import mixers
from tests.hybrids.filled import filled
from tests.hybrids.toys import Decay
from tests.mixers.bidirectional import one_way

D, TAPS = 3, 2
X = jax.random.normal(jax.random.key(3), (1, 6, D))
DECAY = dict(name=Decay)
PATH = "hybrids.shells.Shell"
SMALL = {
  "": dict(mixer=dict(name="s5", state=4)),
  "h3": dict(mixer=dict(name="s5", state=4), kind="h3", taps=3),
  "no gate": dict(mixer=dict(name="softmax", heads=2), kind="none"),
}
ORACLE = {}
REFUSED = [
  (dict(mixer=dict(name="mlp"), kind="gau"), "Shell: kind='gau'; choose from ['none', 'h3', 'mamba']"),
  (dict(mixer=dict(name="mlp"), taps=0), "Shell: taps=0; it must be at least 1"),
  (dict(mixer=dict(name="mlp"), kind="none", expand=2), "Shell: expand=2 with kind='none'"),
  (dict(mixer=dict(name="mlp", tpas=1)), "has no field 'tpas'"),
  (dict(mixer=dict(name="mlp", width=3)), "sets width=3 in a stack of width=16; leave it out"),
]


def count(d, mixer, kind="mamba", taps=4):
  """What is inside, and out; with a gate also in, and a convolution with bias."""
  parts, e = {"none": (0, d), "h3": (3, d), "mamba": (2, 2 * d)}[kind]
  return mixers.count(width=e, **mixer) + e * d + parts * d * e + bool(parts) * (taps + 1) * e


def parts(kind, expand=None):
  module = Shell(width=D, mixer=DECAY, kind=kind, expand=expand, taps=TAPS)
  variables = filled(module, X)
  return jax.jit(module.apply)(variables, X)[0], jax.tree.map(np.asarray, variables["params"])


def convolved(p, u):
  before = np.concatenate([np.zeros_like(u[:1]), u[:-1]])
  return p["conv"]["kernel"][0] * before + p["conv"]["kernel"][1] * u + p["conv"]["bias"]


def test_without_a_gate():
  y, p = parts("none")
  expected = jax.nn.gelu(one_way(p["inner"], X[0])) @ p["out_proj"]["kernel"]
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  assert set(p) == {"inner", "out_proj"}


def test_h3():
  y, p = parts("h3")
  k, v, q = np.split(np.asarray(X[0]) @ p["in_proj"]["kernel"], 3, axis=1)
  expected = (q * one_way(p["inner"], convolved(p, k) * v)) @ p["out_proj"]["kernel"]
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("expand", [None, 1])
def test_mamba(expand):
  y, p = parts("mamba", expand)
  u, z = np.split(np.asarray(X[0]) @ p["in_proj"]["kernel"], 2, axis=1)
  assert u.shape[1] == (expand or 2) * D
  expected = (jax.nn.silu(z) * one_way(p["inner"], jax.nn.silu(convolved(p, u)))) @ p["out_proj"]["kernel"]
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_the_state_is_that_of_the_mixer_inside():
  kinds = {name: Shell(width=8, mixer=dict(name=name)).STATE for name in ("s5", "softmax", "hyena", "mlp")}
  assert kinds == {"s5": "fixed", "softmax": "grows", "hyena": "whole input", "mlp": "fixed"}
  assert Shell(width=8, mixer=dict(name="s4nd")).STATE == "none"
  assert Shell(width=8, mixer=dict(name="s5")).SIDE == ("dt",)
