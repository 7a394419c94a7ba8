"""RWKV-7: initial values, the first layer's values in later ones, and the range of its eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.rwkv7 import RWKV7
from hybrids.mixer import build
from tests.contract.case import D
from tests.initial import close, initial, orthogonal, shaped
from tests.stepped import stepped

RANKS = dict(w_rank=2, a_rank=3, v_rank=2, g_rank=40)  # the last: outputs that are not all small
SMALL = {
  "": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40),
  "v_first": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40, layer=1, depth=3),
}
ORACLE = {
  "": (dict(head_size=4, **RANKS), dict(heads=2)),
  "v_first": (dict(head_size=2, layer=2, depth=5, **RANKS), dict(heads=4)),
}
SIDE = {"v_first": {"v_first": lambda b, t: np.random.default_rng(0).standard_normal((b, t, D))}}
SLOW = ("v_first",)
TRAINED = {"undecayed": {"mu"}}
REFUSED = [
  (dict(head_size=3), "head_size=3 does not divide width=8"),
  (dict(g_rank=0), "g_rank=0; it must be at least 1"),
]
PLACE, LINE = np.arange(128) / 128, np.arange(128) / 127
WITHIN = (np.arange(128) % 64 - 31.5) / 31.5
INITIAL = [
  (
    dict(width=128, layer=1, depth=3),
    {
      "mu": close([1 - PLACE ** (power * 2 / 3) for power in (0.2, 0.9, 0.7, 0.7, 0.9, 0.2)], atol=1e-6),
      "w_lora/up/bias": close(-6 + 6 * LINE ** (1 + 0.5**0.3) + 0.5 + 2.5 * WITHIN * abs(WITHIN), atol=1e-5),
      "k_k": close(0.76 - 0.1 * LINE, atol=1e-6),
      "k_a": close(1.02),
      "r_k": close(-0.04),
      "norm/scale": close(np.full(128, (2 / 3) ** 0.7)),
      "r_proj v_proj": orthogonal(),
      "k_proj": orthogonal(0.1),
      "g_lora/up": shaped(64, 128),
      "g_lora/up ": orthogonal(0.1),
      "w_lora/down a_lora/down v_lora/down g_lora/down out_proj": 0,
    },
  )
]


def count(d, w_rank, a_rank, v_rank, g_rank, **_):
  """Four maps; six mixtures, k_k, k_a, r_k, the norm with bias; maps of low rank, three with bias."""
  return 4 * d * d + 6 * d + 3 * d + 2 * d + 2 * d * (w_rank + a_rank + v_rank + g_rank) + 3 * d


def test_ranks_grow_with_the_root_of_the_width():
  """As published for widths 768 and 4096."""
  for width, ranks in {768: (64, 64, 32, 128), 4096: (160, 160, 96, 320)}.items():
    p = jax.eval_shape(lambda width=width: initial(RWKV7(width=width)))
    assert tuple(p[f"{name}_lora"]["up"]["kernel"].shape[0] for name in "wavg") == ranks


def filled(module):
  """The initial parameters plus noise, so that the output is not 0."""
  rng = np.random.default_rng(0)
  noisy = lambda z: z + 0.3 * rng.standard_normal(z.shape).astype(np.float32)
  return {"params": jax.tree.map(noisy, initial(module))}


def test_eigenvalues_lie_between_those_of_the_decay_and_one_below():
  """The smallest decay is exp(-1 / sqrt(e)) = 0.545; at full rate one eigenvalue is 1 lower."""
  module = RWKV7(width=8, head_size=4)
  variables = filled(module)
  for name in ("w_lora", "a_lora"):
    variables["params"][name]["up"]["bias"] = np.full(8, 100, np.float32)
  S, x = jnp.zeros((1, 2, 4, 4)), jnp.asarray(np.random.default_rng(1).standard_normal((1, 8)), jnp.float32)
  step = jax.jit(lambda S: module.apply(variables, x, module.init_state(1, 1)._replace(S=S), method="step")[1].S)
  columns = [(step(S.at[:, :, i, 0].set(1)) - step(S))[0, :, :, 0] for i in range(4)]
  slowest = np.exp(-(np.e**-0.5))
  for transition in np.stack(columns, axis=-1):
    np.testing.assert_allclose(np.linalg.eigvalsh(transition), [slowest - 1, *[slowest] * 3], atol=1e-5)


@pytest.mark.slow
def test_the_first_layers_values_reach_all_later_ones():
  """Through a stack, in one call and by steps."""
  letters = {"r": dict(name="rwkv7", head_size=4)}
  stack = build("stack", width=8, depth=3, pattern="r", letters=letters)
  x = jax.random.normal(jax.random.key(0), (2, 6, 8))
  shapes = jax.jit(stack.init)(jax.random.key(1), x)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda z: z + 0.3 * rng.standard_normal(z.shape).astype(np.float32), shapes)
  y = jax.jit(stack.apply)(variables, x)
  np.testing.assert_allclose(stepped(stack, variables, x, stack.init_state(2, 6))[0], y, atol=2e-4)
  module = RWKV7(width=8, head_size=4)
  alone = filled(module)
  first = jax.random.normal(jax.random.key(2), x.shape)
  run = jax.jit(lambda x, side: module.apply(alone, x, side=side))
  assert np.abs(run(x, {"v_first": first}) - run(x, None)).max() > 0.01
