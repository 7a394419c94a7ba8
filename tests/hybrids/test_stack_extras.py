"""What layers keep, sow, offer and learn, in a loop as outside of one."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.body.stack import Stack
from tests.hybrids.filled import filled
from tests.hybrids.test_stack import B, D, T, X, close, make, variables


def test_batch_statistics_are_kept_for_each_layer():
  stack = make(depth=5, pattern="cd")
  kept = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(0), X))
  assert kept["batch_stats"]["c"]["mixer"]["mean"].shape == (3, D)
  assert all(not leaf.any() for leaf in jax.tree.leaves(kept["batch_stats"])), "initialising updates nothing"

  @jax.jit
  def train(kept, x):
    y, changed = stack.apply(kept, x, mutable=["batch_stats"])
    return y, {**kept, **changed}

  y, after = train(kept, X)
  groups = after["batch_stats"]["c"]["mixer"]["mean"]
  own = kept["params"]["c"]["norm"]["scale"][0]
  first = own * X * jax.lax.rsqrt(jnp.mean(X**2, axis=-1, keepdims=True) + 1e-5)
  close(groups[0], 0.5 * jnp.mean(first, axis=(0, 1)))
  assert not np.allclose(groups[0], groups[1]), "each layer has its own"
  assert jax.tree.structure(after) == jax.tree.structure(kept)
  evaluate = jax.jit(stack.apply)
  assert not np.allclose(evaluate(after, X), y), "evaluation uses what was kept"
  # also where the caller forgot that only training may change it
  run = functools.partial(stack.apply, method="prefill", mutable=["batch_stats"])
  (prefilled, _), changed = jax.jit(run)(after, X, stack.init_state(B, T))
  close(prefilled, evaluate(after, X))
  jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], after["batch_stats"])


@pytest.mark.parametrize("remat", ["none", "full"])
def test_sown_values_come_out_by_layer(remat):
  stack = make(depth=5, pattern="cd", remat=remat)
  _, sown = jax.jit(functools.partial(stack.apply, mutable=["losses"]))(variables(5, "cd"), X)
  assert sown["losses"]["c"]["mixer"]["size"][0].shape == (3,)


def test_what_is_offered_first_reaches_the_layers_after_it():
  stack = make(depth=4, pattern="o")
  fresh = filled(stack, X)["params"]
  assert set(fresh["o"]["0"]["mixer"]) == {"key"}, "the first layer has nothing to take"
  assert fresh["o"]["mixer"]["mix"]["kernel"].shape == (3, D, D)

  @jax.jit
  def by_hand(x):
    norm = lambda x, scale: scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    first, others = fresh["o"]["0"], fresh["o"]
    offered = first["mixer"]["key"] * norm(x, first["norm"]["scale"])
    x = x + jnp.sin(norm(x, first["norm"]["scale"]))
    for scale, kernel in zip(others["norm"]["scale"], others["mixer"]["mix"]["kernel"]):
      x = x + jnp.sin(norm(x, scale)) + offered @ kernel
    return x

  close(jax.jit(stack.apply)({"params": fresh}, X), by_hand(X))
  prefill, step = (functools.partial(stack.apply, {"params": fresh}, method=method) for method in ("prefill", "step"))
  y, state = jax.jit(prefill)(X[:, :-1], stack.init_state(B, T))
  close(y, by_hand(X)[:, :-1])
  close(jax.jit(step)(X[:, -1], state)[0], by_hand(X)[:, -1])


def test_a_short_stack_offers_too():
  stack = make(depth=2, pattern="o")
  fresh = nn.meta.unbox(jax.eval_shape(stack.init, jax.random.key(0), X))["params"]["o"]
  assert (set(fresh["0"]["mixer"]), set(fresh["mixer"])) == ({"key"}, {"key", "mix"})


def test_side_reaches_those_that_take_it():
  stack = make(depth=3, pattern="do")
  assert stack.SIDE == ("first", "given")
  params = filled(stack, X)
  run = jax.jit(stack.apply)
  given = run(params, X, side={"given": jnp.ones((B, T, D))})
  assert not np.allclose(given, run(params, X))
  with pytest.raises(ValueError, match=r"Stack: side has \['gvien'\]; it reads \['first', 'given'\]"):
    stack.apply(params, X, side={"gvien": X})


def test_layers_of_one_letter_must_have_the_same_parameters():
  letters = {"g": dict(name="tests.hybrids.toys.Grows")}
  with pytest.raises(ValueError, match="'tests.hybrids.toys.Grows' has other parameters in layer 1 than in layer 0"):
    jax.eval_shape(Stack(width=D, depth=3, pattern="g", letters=letters).init, jax.random.key(0), X)
