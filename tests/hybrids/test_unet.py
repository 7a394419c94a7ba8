"""The audio U-net from any state: rows of unequal lengths stop inside windows of every stage, and go on from there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from hybrids.body.unet import UNet
from tests.contract.case import jit

B, T, D = 3, 29, 4
S4D = dict(pattern="s", depth=1, letters={"s": dict(name="s4d", state=2)})
CASES = {
  "pools of 2 and 3": UNet(D, stack=S4D, pools=(2, 3), expand=1),
  "stacks both ways": UNet(D, stack=S4D, pools=(3,), down=True),
  "pools of one": UNet(D, stack=S4D, pools=(1, 2)),
  "attention": UNet(D, stack=dict(pattern="a", depth=1, letters={"a": dict(name="softmax", heads=2)}), pools=(2, 2)),
}


@functools.cache
def ready(name):
  x = jax.random.normal(jax.random.key(1), (B, T, D))
  variables = jit(lambda: meta.unbox(CASES[name].init(jax.random.key(0), x)))()
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
  variables = jax.tree.unflatten(tree, moved)
  return x, variables, np.asarray(jit(CASES[name].apply)(variables, x))


@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=[pytest.mark.slow] * (i > 0)) for i, name in enumerate(CASES)]
)
def test_rows_of_unequal_lengths_stop_anywhere_and_go_on(name):
  unet = CASES[name]
  x, variables, whole = ready(name)
  prefill = jit(functools.partial(unet.apply, method="prefill"))
  step = jit(functools.partial(unet.apply, method="step"))
  state = unet.init_state(B, T)
  place = np.zeros(B, int)
  # every row stops at another place of its windows, one row not moving at all in the second piece
  for lengths in ([7, 1, 4], [3, 9, 0], [2, 8, 5]):
    piece = np.stack([np.asarray(x)[b, np.minimum(place[b] + np.arange(10), T - 1)] for b in range(B)])
    y, state = prefill(variables, jnp.asarray(piece), state, lengths=jnp.array(lengths))
    for b, n in enumerate(lengths):
      np.testing.assert_allclose(y[b, :n], whole[b, place[b] : place[b] + n], rtol=1e-4, atol=1e-5)
      assert not np.any(y[b, n:])
    place = place + np.array(lengths)
  apart = unet.apart(variables)
  for t in range(7):
    y, state = step(apart, x[np.arange(B), place + t], state)
    np.testing.assert_allclose(y, whole[np.arange(B), place + t], rtol=1e-4, atol=1e-5)


def test_its_state_has_one_window_a_stage():
  unet = CASES["pools of 2 and 3"]
  shapes = lambda n: jax.tree.map(jnp.shape, jax.eval_shape(functools.partial(unet.init_state, 1, n)))
  assert unet.STATE == "fixed"
  assert shapes(10) == shapes(10_000)


@pytest.mark.slow
def test_apart_and_together_are_inverses():
  unet = CASES["stacks both ways"]
  _, variables, _ = ready("stacks both ways")
  apart = unet.apart(variables)
  assert set(apart["params"]["up_0"]["s"]) == {"0"}
  jax.tree.map(np.testing.assert_array_equal, unet.together(apart), variables)


def test_packed_documents_are_refused():
  x, variables, _ = ready("pools of 2 and 3")
  with pytest.raises(ValueError, match="pools over time"):
    CASES["pools of 2 and 3"].apply(variables, x, reset=jnp.zeros((B, T), bool).at[:, 0].set(True))
