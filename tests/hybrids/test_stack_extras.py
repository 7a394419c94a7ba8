"""What layers keep, sow, offer and learn, in a loop as outside of one."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.stack import Stack
from tests.hybrids.filled import filled
from tests.hybrids.test_stack import RESET, B, D, T, X, close, make, variables


def test_batch_statistics_are_kept_for_each_layer():
  stack = make(depth=5, pattern="cd")
  kept = nn.meta.unbox(jax.jit(stack.init)(jax.random.key(0), X))
  assert kept["batch_stats"]["groups"]["0_toys"]["mixer"]["mean"].shape == (2, D)
  assert kept["batch_stats"]["layers"]["4_toys"]["mixer"]["mean"].shape == (D,)
  assert all(not leaf.any() for leaf in jax.tree.leaves(kept["batch_stats"])), "initialising updates nothing"

  @jax.jit
  def train(kept, x):
    y, changed = stack.apply(kept, x, mutable=["batch_stats"])
    return y, {**kept, **changed}

  y, after = train(kept, X)
  groups = after["batch_stats"]["groups"]["0_toys"]["mixer"]["mean"]
  own = kept["params"]["groups"]["0_toys"]["norm"]["scale"][0]
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
  assert sown["losses"]["groups"]["0_toys"]["mixer"]["size"][0].shape == (2,)
  assert sown["losses"]["layers"]["4_toys"]["mixer"]["size"][0].shape == ()


def test_what_is_offered_first_reaches_the_layers_after_it():
  stack = make(depth=4, pattern="o")
  fresh = filled(stack, X)["params"]
  assert set(fresh["layers"]["0_toys"]["mixer"]) == {"key"}, "the first layer has nothing to take"
  assert fresh["groups"]["0_toys"]["mixer"]["mix"]["kernel"].shape == (3, D, D)

  @jax.jit
  def by_hand(x):
    norm = lambda x, scale: scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    first, others = fresh["layers"]["0_toys"], fresh["groups"]["0_toys"]
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
  fresh = nn.meta.unbox(jax.eval_shape(stack.init, jax.random.key(0), X))["params"]["layers"]
  assert (set(fresh["0_toys"]["mixer"]), set(fresh["1_toys"]["mixer"])) == ({"key"}, {"key", "mix"})


def test_side_reaches_those_that_take_it():
  stack = make(depth=3, pattern="do")
  assert stack.SIDE == ("first", "given")
  params = filled(stack, X)
  run = jax.jit(stack.apply)
  given = run(params, X, side={"given": jnp.ones((B, T, D))})
  assert not np.allclose(given, run(params, X))
  with pytest.raises(ValueError, match=r"side has \['gvien'\], but the mixers of 'do' take \['first', 'given'\]"):
    stack.apply(params, X, side={"gvien": X})


def test_layers_of_one_letter_must_have_the_same_parameters():
  mixers = {"g": dict(name="tests.hybrids.toys.Grows")}
  with pytest.raises(ValueError, match="'tests.hybrids.toys.Grows' has other parameters in layer 1 than in layer 0"):
    jax.eval_shape(Stack(width=D, depth=3, pattern="g", mixers=mixers).init, jax.random.key(0), X)


def test_the_first_state_can_be_learned():
  stack = make(learn_state=True)
  fresh = filled(stack, X)["params"]
  assert {name: leaf.shape for name, leaf in fresh["initial_state"].items()} == {"0_h": (D,), "2_h": (D,), "4_h": (D,)}
  start_at = lambda value: {**fresh, "initial_state": {name: jnp.full(D, value) for name in fresh["initial_state"]}}
  run = jax.jit(lambda params, x: stack.apply({"params": params}, x))
  close(run(start_at(0.0), X), jax.jit(make().apply)({"params": fresh}, X))
  gradient = jax.jit(jax.grad(lambda params: jnp.sum(jnp.sin(run(params, X)))))(fresh)
  assert all(np.abs(leaf).min() > 0 for leaf in gradient["initial_state"].values())

  moved = start_at(1.0)
  start = stack.apply({"params": moved}, B, T, method="start")
  assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(start))
  apply = lambda method: jax.jit(functools.partial(stack.apply, {"params": moved}, method=method))
  y, state = apply("prefill")(X[:, :-1], start)
  expected = run(moved, X)
  close(y, expected[:, :-1])
  close(apply("step")(X[:, -1], state)[0], expected[:, -1])


def test_only_fixed_states_are_learned():
  mixers = {"d": dict(name="tests.hybrids.toys.Decay"), "a": dict(name="softmax", heads=1)}
  stack = Stack(width=D, depth=2, pattern="da", mixers=mixers, learn_state=True)
  params = filled(stack, X)
  assert set(params["params"]["initial_state"]) == {"0_h"}
  start, empty = stack.apply(params, B, T, method="start"), stack.init_state(B, T)
  jax.tree.map(np.testing.assert_array_equal, start[1], empty[1])
  close(start[0].h, np.broadcast_to(params["params"]["initial_state"]["0_h"], (B, D)))


def test_a_learned_state_and_resets_exclude_each_other():
  with pytest.raises(ValueError, match="learn_state=True and reset exclude each other"):
    jax.eval_shape(functools.partial(make(learn_state=True).init, reset=RESET), jax.random.key(0), X)


def test_complex_states_are_learned_in_two_parts():
  mixers = {"z": dict(name="tests.hybrids.toys.Turn")}
  stack = Stack(width=D, depth=1, pattern="z", mixers=mixers, learn_state=True)
  fresh = filled(stack, X)["params"]
  assert set(fresh["initial_state"]) == {"0_h_re", "0_h_im"}
  assert all(leaf.dtype == jnp.float32 for leaf in fresh["initial_state"].values())
  moved = {**fresh, "initial_state": {"0_h_re": jnp.full(D, 2.0), "0_h_im": jnp.full(D, 3.0)}}
  close(stack.apply({"params": moved}, B, T, method="start")[0].h, np.full((B, D), 2 + 3j))
