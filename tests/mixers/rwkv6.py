"""RWKV-6: initial values, and the bonus of the current token."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.rwkv6 import RWKV6
from tests.initial import initial

SMALL = {"": dict(head_size=4, mix_rank=2, decay_rank=2)}
ORACLE = {
  "": (dict(head_size=4, mix_rank=2, decay_rank=3), dict(heads=2)),
  "last layer": (dict(layer=2, depth=3), dict(heads=1)),
}
SLOW = ("last layer",)
TRAINED = {"undecayed": {"mu", "u"}}
REFUSED = [
  (dict(head_size=3), "head_size=3 does not divide width=8"),
  (dict(mix_rank=0), "mix_rank=0; it must be at least 1"),
]


def count(d, mix_rank, decay_rank, **_):
  """Five maps; six mixtures, five of them with a map of low rank; one with bias for decays; bonuses; norm with bias."""
  return 5 * d * d + 6 * d + 10 * d * mix_rank + 2 * d * decay_rank + d + d + 2 * d


def test_initial_values():
  p = initial(RWKV6(width=128, layer=1, depth=3))
  place, line, n = np.arange(128) / 128, np.arange(128) / 127, np.arange(128)
  for i, (mu, power) in enumerate(zip(p["mu"], (1, 1, 1, 1, 0.5, 0.5))):
    np.testing.assert_allclose(mu, 1 - place ** (power * 2 / 3) - 0.15 * (i == 3), atol=1e-6)
  np.testing.assert_allclose(p["w_lora"]["up"]["bias"], -6 + 5 * line**1.35, atol=1e-5)
  np.testing.assert_allclose(p["u"].ravel(), 0.5 * (1 - line) + 0.1 * ((n + 1) % 3 - 1), atol=1e-6)
  np.testing.assert_allclose(p["norm"]["scale"], np.full(128, (2 / 3) ** 0.7), rtol=1e-6)
  for name, gain in {"r_proj": 1, "k_proj": 0.1, "v_proj": 1, "g_proj": 0.1}.items():
    W = np.asarray(p[name]["kernel"])
    np.testing.assert_allclose(W @ W.T, gain**2 * np.eye(128), atol=1e-5)
  for up in (p["mix_up"], p["w_lora"]["up"]["kernel"]):
    np.testing.assert_allclose([up.min(), up.max()], [-0.01, 0.01], rtol=0.01)
  for zero in (p["mix_down"]["kernel"], p["w_lora"]["down"]["kernel"], p["out_proj"]["kernel"]):
    assert not zero.any()


def test_the_bonus_weighs_the_current_token_alone():
  """It changes outputs but no state."""
  module = RWKV6(width=8, head_size=4)
  rng = np.random.default_rng(0)
  p = jax.tree.map(lambda z: z + 0.3 * rng.standard_normal(z.shape).astype(np.float32), initial(module))
  p["norm"]["scale"] = np.ones(8, np.float32)
  x = jax.random.normal(jax.random.key(0), (1, 5, 8))
  run = jax.jit(lambda p: module.apply({"params": p}, x, module.init_state(1, 1), method="prefill"))
  (y, state), (y_more, state_more) = run(p), run(p | {"u": p["u"] + 1})
  np.testing.assert_array_equal(state.S, state_more.S)
  assert np.abs(y - y_more).max() > 1e-3
  # the first token reads itself by the bonus alone: without it y is 0, and so is the norm without its bias
  none, _ = run(p | {"u": 0 * p["u"], "norm": p["norm"] | {"bias": jnp.zeros(8)}})
  np.testing.assert_allclose(none[0, 0], 0, atol=1e-6)


def test_its_published_sizes_come_with_the_width():
  assert RWKV6(width=2048).init_state(1, 1).S.shape == (1, 32, 64, 64)
