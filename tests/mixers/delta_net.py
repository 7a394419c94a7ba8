"""DeltaNet: initial values, published sizes, and parity by negative eigenvalues, also of its two successors."""

import jax
import numpy as np
import pytest

from attention.recurrent.delta_net import DeltaNet
from attention.recurrent.gated_delta_net import GatedDeltaNet
from attention.recurrent.kda import KDA
from tests.initial import initial, uniform

SMALL = {"": dict(heads=2)}
ORACLE = {
  "": dict(heads=2),
  "negative eigenvalues": (
    dict(heads=2, expand_k=0.5, expand_v=2.0, taps=2, negative_eigenvalues=True),
    dict(beta_most=2),
  ),
}
REFUSED = [
  (dict(heads=3), "heads=3 does not divide 8 keys and 8 values"),
  (dict(taps=0), "taps=0; it must be at least 1"),
  (dict(expand_v=0.01), "expand_v=0.01 of width=8 leaves no channel"),
]
MAPS = {"qkv/q_proj qkv/k_proj qkv/v_proj": uniform(1 / 8), "qkv/conv": uniform(1 / 2), "out_proj": uniform(1 / 32)}
INITIAL = [(dict(width=64, depth=16), MAPS | {"norm/scale": np.ones(16)})]
STATES = [(dict(width=1024), {"S": (1, 4, 256, 256), "taps": (1, 3, 3 * 1024)})]


def count(d, heads, expand_k=1, expand_v=1, taps=4, **_):
  """Queries, keys, values and out; convolution; a step for each head; the norm."""
  k, v = int(expand_k * d), int(expand_v * d)
  return 2 * d * k + 2 * d * v + taps * (2 * k + v) + d * heads + v // heads


START, ONE, ZERO = np.eye(4, dtype=np.float32)[:3]
ALWAYS = np.eye(4, dtype=np.float32)[3]
LOUD = 100.0  # its sigmoid is 1, that of -LOUD is 0


def parity_machine(cls, **kwargs):
  """One head with one key: START writes a value, ONE negates it (a step of 2), ZERO leaves it (a step of 0)."""
  module = cls(width=4, heads=1, head_size=4, **kwargs) if cls is not DeltaNet else cls(width=4, heads=1, **kwargs)
  p = jax.tree.map(lambda z: np.zeros(z.shape, np.float32), initial(module))
  key = np.outer(ALWAYS, np.eye(4)[0]).astype(np.float32)
  for name, kernel in {"q_proj": key, "k_proj": key, "v_proj": np.outer(START, np.eye(4)[0])}.items():
    p["qkv"][name]["kernel"][:, :4] = LOUD * kernel
  p["qkv"]["conv"]["kernel"][-1] = 1
  p["b_proj"]["kernel"][:, 0] = LOUD * (ONE - ZERO)
  p["out_proj"]["kernel"][:4] = np.eye(4)
  for name in ("norm", "gated_norm"):
    if name in p:
      p[name]["scale"][:] = 1
  if cls is not DeltaNet:
    p["A_log"][:] = -LOUD
  if cls is GatedDeltaNet:
    p["g_proj"]["kernel"][3] = 1
  return module, p


@pytest.mark.slow
@pytest.mark.parametrize("cls", [DeltaNet, GatedDeltaNet, KDA])
def test_negative_eigenvalues_count_ones_modulo_2(cls):
  """At any length; with steps of at most 1 the same weights erase the value at the first ONE."""
  bits = np.random.default_rng(0).integers(0, 2, 300)
  x = np.stack([START, *np.where(bits[:, None] == 1, ONE, ZERO)])[None] + ALWAYS
  run = lambda module, p: np.asarray(jax.jit(module.apply)({"params": p}, x)[0, 1:, 0])
  y = run(*parity_machine(cls, negative_eigenvalues=True))
  assert np.abs(y).min() > 0.3
  np.testing.assert_array_equal(np.sign(y), 1 - 2 * (np.cumsum(bits) % 2))
  plain = run(*parity_machine(cls))
  np.testing.assert_allclose(plain[np.argmax(bits) :], 0, atol=1e-3)
