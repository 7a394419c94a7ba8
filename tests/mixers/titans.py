"""Titans: small sizes, parameter count, oracle, refusals; DeltaNet as its simplest memory; where chunks begin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.delta_net import DeltaNet
from attention.recurrent.titans import Titans
from tests.initial import initial, uniform
from tests.stepped import stepped

SMALL = {
  "": dict(heads=2, inner=3, chunk=4),
  "delta rule": dict(heads=2, layers=1, chunk=1, momentum=False),
  "linear": dict(layers=1, chunk=5, decay=False),
}
ORACLE = {
  "": (dict(heads=2, inner=3, chunk=4), dict(heads=2, layers=2, chunk=4)),
  "deep": (
    dict(layers=3, inner=5, chunk=3, rate_max=0.2, momentum=False, taps=2),
    dict(heads=1, layers=3, chunk=3, rate_max=0.2, momentum=False),
  ),
  "delta rule": 2 * (dict(heads=2, layers=1, chunk=1, momentum=False),),
  "linear": 2 * (dict(heads=4, layers=1, chunk=5, decay=False, bounded=False),),
}
RESUMED = ("", "linear")
REFUSED = [
  (dict(heads=3), "Titans: heads=3 does not divide width=8"),
  (dict(layers=0), "Titans: layers=0; it must be at least 1"),
  (dict(chunk=0), "Titans: chunk=0; it must be at least 1"),
  (dict(inner=0), "Titans: inner=0; it must be at least 1"),
  (dict(rate_max=0.0), "Titans: rate_max=0.0; it must be above 0"),
]
INITIAL = [
  (
    dict(width=64, heads=4, depth=16),
    {
      "qkv/q_proj qkv/k_proj qkv/v_proj": uniform(1 / 8),
      "out_proj": uniform(1 / 32),
      "M_0": uniform(1 / 4),
      "M_1": uniform(1 / 8),
      "gates/bias": np.repeat([-3.0, 0.0, -5.0], 4),
    },
  ),
  # without momentum or decay these have no gates
  (dict(layers=1, momentum=False, decay=False), {"gates/bias": np.array([-3.0])}),
]
LAYERS = {"weights/0": (1, 1, 64, 256), "weights/1": (1, 1, 256, 64)}
MOMENTUM = {"momentum/0": (1, 1, 64, 256), "momentum/1": (1, 1, 256, 64)}
STATES = [
  (dict(width=64), LAYERS | MOMENTUM),
  (dict(width=64, heads=4, layers=1, chunk=1, momentum=False), {"weights/0": (1, 4, 16, 16)}),
]


def count(d, heads=1, layers=2, inner=None, momentum=True, decay=True, taps=4, **_):
  """Queries, keys, values and out; convolution; a rate, a momentum and a decay with bias; the initial memory; norm."""
  size = d // heads
  sides = [size, *[inner or 4 * size] * (layers - 1), size]
  memory = heads * sum(i * o for i, o in zip(sides, sides[1:])) if layers > 1 else 0
  return 4 * d * d + taps * 3 * d + (d + 1) * heads * (1 + momentum + decay) + memory + size


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def writable(module):
  return jax.tree.map(np.array, initial(module))


def run(module, p, x):
  return np.asarray(jax.jit(module.apply)({"params": p}, x))


def test_its_sizes_come_with_the_width():
  state = Titans(width=64).init_state(3, 1)
  assert [W.shape for W in state.weights] == [(3, 1, 64, 256), (3, 1, 256, 64)]
  assert jax.tree.map(jnp.shape, state.momentum) == jax.tree.map(jnp.shape, state.weights)
  state = Titans(width=64, heads=4, layers=1, chunk=1, momentum=False).init_state(3, 1)
  assert [W.shape for W in state.weights] == [(3, 4, 16, 16)]
  assert state.start == state.momentum == ()


def test_a_linear_memory_without_momentum_or_decay_is_a_delta_net_at_chunk_1():
  d, heads, eps = 8, 2, 1e-3
  # theta = beta / 2; theirs divides queries by the root of their size, which the norm's eps alone can tell
  titans = Titans(d, heads=heads, layers=1, chunk=1, momentum=False, decay=False, rate_max=0.5, norm_eps=eps)
  delta = DeltaNet(d, heads=heads, norm_eps=eps * heads / d)
  x = jax.random.normal(jax.random.key(0), (2, 19, d))
  p = writable(titans)
  p["gates"]["bias"][:] = 0
  same = {"b_proj": {"kernel": p["gates"]["kernel"]}} | {name: p[name] for name in ("qkv", "norm", "out_proj")}
  np.testing.assert_allclose(run(titans, p, x), run(delta, same, x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_delta_rule_is_what_the_general_memory_does():
  # momentum that is none leaves the way through `delta_rule`
  kwargs = dict(width=8, heads=2, layers=1, chunk=1)
  fast, general = Titans(**kwargs, momentum=False), Titans(**kwargs)
  p, q = writable(fast), writable(general)
  rate, alpha = np.split(p["gates"]["kernel"], 2, axis=1)
  q |= {name: p[name] for name in ("qkv", "norm", "out_proj")}
  q["gates"]["kernel"] = np.concatenate([rate, 0 * rate, alpha], axis=1)
  q["gates"]["bias"][2:4] = -100
  x = jax.random.normal(jax.random.key(0), (2, 9, 8))
  np.testing.assert_allclose(run(fast, p, x), run(general, q, x), rtol=1e-5, atol=1e-6)


def test_gradients_are_taken_where_the_chunk_began():
  """Within the first chunk a linear memory is empty to all gradients: M_t = sum of 2 theta k v^T, plain attention."""
  d, t = 6, 7
  module = Titans(d, layers=1, chunk=t, momentum=False, decay=False, norm_eps=0.5, bounded=False)
  p = writable(module)
  x = np.random.default_rng(0).standard_normal((1, t, d)).astype(np.float32)
  bound = module.bind({"params": p})
  (q, k, v), _ = bound.qkv(jnp.asarray(x), jnp.zeros((1, 3, 3 * d)))
  q, k, v = (np.asarray(z)[0, :, 0] for z in (q * d**0.5, k, v))
  theta = 0.5 * sigmoid(x[0] @ p["gates"]["kernel"] + p["gates"]["bias"])
  read = np.tril(q @ k.T) @ (2 * theta * v)
  want = read / np.sqrt((read**2).mean(-1, keepdims=True) + 0.5) @ p["out_proj"]["kernel"]
  np.testing.assert_allclose(run(module, p, x)[0], want, atol=1e-5)


def test_the_state_is_where_the_chunk_began_the_weights_and_the_momentum():
  module = Titans(6, layers=1, chunk=4, heads=2)
  p = {"params": initial(module)}
  x = jax.random.normal(jax.random.key(0), (1, 6, 6))
  _, states = stepped(module, p, x, module.init_state(1, 6))
  at = lambda i, field: np.asarray(getattr(states[i], field)[0])
  # empty at first, then the weights after four tokens
  assert not at(2, "start").any()
  for later in (3, 4, 5):
    np.testing.assert_array_equal(at(later, "start"), at(3, "weights"))
  assert [int(state.length[0]) for state in states] == [1, 2, 3, 4, 5, 6]
  alpha = sigmoid(np.asarray(module.bind(p).gates(x))[0, 5, 4:])[:, None, None]
  np.testing.assert_allclose(at(5, "weights"), (1 - alpha) * at(4, "weights") + at(5, "momentum"), atol=1e-6)
