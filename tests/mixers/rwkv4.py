"""RWKV-4: initial values, and its mean for extreme keys and decays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.rwkv4 import RWKV4
from tests.initial import close, initial, orthogonal

SMALL = {"": {}}
ORACLE = {"": {}, "last layer": dict(layer=2, depth=3, inner=6)}
TRAINED = {"undecayed": {"mu"}}
REFUSED = [(dict(inner=0), "inner=0; it must be at least 1"), (dict(depth=0), "depth=0; it must be at least 1")]
PLACE, LINE, N = np.arange(128) / 128, np.arange(128) / 127, np.arange(128)
MU = np.stack([1 - PLACE ** (2 / 3), 1 - PLACE ** (2 / 3) - 0.15, 1 - PLACE ** (1 / 3)])
INITIAL = [
  (
    dict(width=128, layer=1, depth=3),
    {
      "mu": close(MU, atol=1e-6),
      "log_w": close(-5 + 8 * LINE**1.35, atol=1e-5),
      "u": close(np.log(0.3) + 0.5 * ((N + 1) % 3 - 1), atol=1e-6),
      "v_proj": orthogonal(),
      "k_proj r_proj out_proj": 0,
    },
  )
]


def count(d):
  """Four maps; three mixtures; decays and bonuses."""
  return 4 * d * d + 3 * d + 2 * d


def plain(width):
  """Parameters of a layer whose output is half its mean: k and v are the halves of x, and r is 0."""
  p = initial(RWKV4(width=width))
  half = width // 2
  eye = np.eye(width, dtype=np.float32)
  p |= {"mu": np.zeros((3, width), np.float32), "out_proj": {"kernel": eye}}
  # channel c of k is channel c of x, channel c of v is channel c + half
  p["k_proj"], p["v_proj"] = {"kernel": eye * (np.arange(width) < half)}, {"kernel": np.roll(eye, -half, axis=1)}
  return p


def loop(x, w, u):
  """The mean in the first half of the channels, token by token, from weights over the largest one."""
  half = x.shape[-1] // 2
  k, v, y = x[..., :half], x[..., half:], np.zeros((*x.shape[:2], half))
  for t in range(x.shape[1]):
    age = np.arange(t - 1, -1, -1)[:, None]
    log = np.concatenate([k[:, :t] - age * w[:half], (k[:, t] + u[:half])[:, None]], axis=1)
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    y[:, t] = np.sum(weights * v[:, : t + 1], axis=1) / weights.sum(axis=1)
  return y


@pytest.mark.parametrize("log_w, spread", [(-12.0, 1), (6.0, 1), (-1.0, 100)])
def test_means_are_right_whatever_keys_and_decays_are(log_w, spread):
  """Decays that keep everything for long or nothing at all, weights up to e^300; at an odd length, with gradients."""
  width, t = 4, 101
  p = plain(width) | {"log_w": np.full(width, log_w, np.float32), "u": np.linspace(-1, 1, width, dtype=np.float32)}
  x = np.random.default_rng(0).standard_normal((2, t, width)).astype(np.float32)
  x[..., :2] *= spread
  module = RWKV4(width=width)
  # r = 0: sigmoid(r) is a half
  run = lambda x: 2 * module.apply({"params": p}, x)[..., :2]
  want = loop(x.astype(np.float64), np.exp(p["log_w"]), p["u"])
  np.testing.assert_allclose(jax.jit(run)(x), want, atol=2e-5)
  bar = jax.jit(jax.grad(lambda x: jnp.sum(run(x) ** 2)))(x)
  assert np.isfinite(bar).all()
  with jax.enable_x64(True):
    exact = jax.jit(jax.grad(lambda x: jnp.sum(run(x) ** 2)))(jnp.asarray(x, jnp.float64))
  np.testing.assert_allclose(bar, exact, atol=1e-4 * np.abs(exact).max())


def test_an_equal_value_everywhere_comes_out():
  """Weights sum to 1, from the first token on, and with a state of large sums."""
  p = plain(4)
  x = np.random.default_rng(0).standard_normal((1, 50, 4)).astype(np.float32)
  x[..., 2:] = [2.0, -3.0]
  module = RWKV4(width=4)
  full = jax.jit(lambda x, s: module.apply({"params": p}, x, s, method="prefill")[0])
  np.testing.assert_allclose(2 * full(x, module.init_state(1, 1))[0, :, :2], np.tile([2.0, -3.0], (50, 1)), rtol=1e-5)
  later = module.init_state(1, 1)._replace(
    A=np.float32([[4e5, -6e5, 0, 0]]), B=np.float32([[2e5, 2e5, 1, 1]]), m=np.full((1, 4), 70, np.float32)
  )
  np.testing.assert_allclose(2 * full(x, later)[0, :, :2], np.tile([2.0, -3.0], (50, 1)), rtol=1e-5)
