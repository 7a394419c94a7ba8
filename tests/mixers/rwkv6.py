"""RWKV-6: initial values, and the bonus of the current token."""

import jax
import jax.numpy as jnp
import numpy as np

from attention.recurrent.rwkv6 import RWKV6
from tests.initial import close, initial, orthogonal, uniform

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
PLACE, LINE, N = np.arange(128) / 128, np.arange(128) / 127, np.arange(128)
MU = [1 - PLACE ** (power * 2 / 3) - 0.15 * (i == 3) for i, power in enumerate((1, 1, 1, 1, 0.5, 0.5))]
INITIAL = [
  (
    dict(width=128, layer=1, depth=3),
    {
      "mu": close(MU, atol=1e-6),
      "w_lora/up/bias": close(-6 + 5 * LINE**1.35, atol=1e-5),
      "u": close(0.5 * (1 - LINE) + 0.1 * ((N + 1) % 3 - 1), atol=1e-6, of=np.ravel),
      "norm/scale": close(np.full(128, (2 / 3) ** 0.7)),
      "r_proj v_proj": orthogonal(),
      "k_proj g_proj": orthogonal(0.1),
      "mix_up w_lora/up": uniform(0.01, 0.01),
      "mix_down w_lora/down out_proj": 0,
    },
  )
]
STATES = [(dict(width=2048), {"S": (1, 32, 64, 64)})]


def count(d, mix_rank, decay_rank, **_):
  """Five maps; six mixtures, five of them with a map of low rank; one with bias for decays; bonuses; norm with bias."""
  return 5 * d * d + 6 * d + 10 * d * mix_rank + 2 * d * decay_rank + d + d + 2 * d


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
