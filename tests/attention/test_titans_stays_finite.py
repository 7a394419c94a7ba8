"""Titans stays finite on inputs that its published step size diverges on, in two layers as in a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.titans import Titans
from attention.recurrent.titans_mac import TitansMAC
from attention.recurrent.titans_mag import TitansMAG
from attention.recurrent.titans_mal import TitansMAL
from tests.kernels.compare import QUICK

D, SEEDS = 16, 10
VARIANTS = {
  "titans": lambda memory: Titans(D, **memory),
  "mac": lambda memory: TitansMAC(D, memory=memory, segment=64),
  "mag": lambda memory: TitansMAG(D, memory=memory, window=64),
  "mal": lambda memory: TitansMAL(D, memory=memory, window=64),
}
MEMORIES = {"linear": dict(layers=1), "deep": dict(layers=2)}


def inputs(key, t):
  """Constant, nearly constant, of period 5 and 37, changing every 64 tokens, noise; each at sizes 1, 5 and 20."""
  one, five, many, noise = (jax.random.normal(jax.random.fold_in(key, n), (n, D)) for n in (1, 5, 37, t))
  time = jnp.arange(t)
  slow = jnp.where((time // 64 % 2 == 0)[:, None], one, five[:1])
  x = jnp.stack([jnp.broadcast_to(one, (t, D)), one + 0.1 * noise, five[time % 5], many[time % 37], slow, noise])
  return jnp.concatenate([x, 5 * x, 20 * x])


def last_sizes(module, t):
  """The largest output of the second of two layers for every seed and input; NaN where one is not finite."""

  def run(seed):
    key = jax.random.key(seed)
    x = inputs(key, t)

    def layer(x, key):
      y = module.apply(module.init(key, x[:1, :1]), x)
      # a maximum over some NaN is a number on CPUs
      size = jnp.abs(y).max(axis=(1, 2), where=jnp.isfinite(y), initial=0)
      return x + y, jnp.where(jnp.isfinite(y).all(axis=(1, 2)), size, jnp.nan)

    return jax.lax.scan(layer, x, jax.random.split(key))[1][1]

  every = lambda seeds: jax.lax.map(run, seeds)  # one after the other, to save memory
  return np.asarray(jax.jit(every, compiler_options=QUICK)(jnp.arange(SEEDS)))


FAST = [("titans", "linear"), ("titans", "deep")]
CASES = [
  pytest.param(name, memory, marks=[] if (name, memory) in FAST else pytest.mark.slow)
  for name in VARIANTS
  for memory in MEMORIES
]


@pytest.mark.parametrize("name, memory", CASES)
def test_every_seed_is_finite_on_every_input(name, memory):
  sizes = last_sizes(VARIANTS[name](MEMORIES[memory]), 512)
  assert np.isfinite(sizes).all()
  assert (sizes > 0).all()


def test_the_published_steps_diverge():
  """Otherwise the tests here show nothing."""
  assert not np.isfinite(last_sizes(Titans(D, layers=1, bounded=False), 512)).all()


@pytest.mark.slow
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_seed_is_finite_for_65_536_tokens(name, memory):
  assert np.isfinite(last_sizes(VARIANTS[name](MEMORIES[memory]), 65_536)).all()
