"""Groups, schedules, accumulation, average: each against its closed form."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hybrids.mixer import build
from layers.param import Parameter
from mistake import Mistake
from training import optimizer, schedule
from training.spikes import SETTLED, skipped

PARAMS = {
  "embed": {"table": jnp.full((3, 2), 2.0)},
  "mixer": {"log_dt": jnp.full((2, 2), 2.0), "kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)},
}


def declared(params):
  """The parameters in the boxes in which `layers.param` declares them: log_dt is slow."""
  box = lambda path, leaf: Parameter(leaf, names=(None,) * leaf.ndim, slow=path[-1].key == "log_dt")
  return jax.tree_util.tree_map_with_path(box, params)


def run(params=PARAMS, steps=10, grads=None, updates=1, **settings):
  """Parameters after some updates by sgd with the gradient 0 (decay alone) or the one given."""
  settings = {"name": "sgd", "b1": 0.0, "lr": 0.1, "schedule": "constant", **settings}
  tx = optimizer.build(declared(params), steps=steps, **settings)
  grads = jax.tree.map(jnp.zeros_like, params) if grads is None else grads
  state = tx.init(params)

  @jax.jit
  def step(params, state):
    updates, state = tx.update(grads, state, params)
    return optax.apply_updates(params, updates), state

  history = []
  for _ in range(updates):
    params, state = step(params, state)
    history.append(params)
  return history, state


def flat(params):
  return {
    jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(x)
    for p, x in jax.tree_util.tree_leaves_with_path(params)
  }


def test_weight_decay_spares_vectors_and_slow_parameters():
  (after,), _ = run(weight_decay=0.5)
  assert {path: float(x.flat[0]) for path, x in flat(after).items()} == pytest.approx(
    {"embed/table": 2 - 0.1 * 0.5 * 2, "mixer/kernel": 2 - 0.1 * 0.5 * 2, "mixer/log_dt": 2.0, "mixer/bias": 2.0}
  )


def test_vectors_that_the_stack_puts_together_stay_vectors():
  boxed = {
    "scale": nn.LogicallyPartitioned(jnp.ones((4, 2)), ("layers", "embed")),
    "w": nn.LogicallyPartitioned(jnp.ones((2, 2)), ("embed", "inner")),
  }
  rules = optimizer.assign(boxed, weight_decay=0.1, slow_lr=1.0, groups=())
  assert rules == {"scale": optimizer.Group(1.0, 0.0), "w": optimizer.Group(1.0, 0.1)}


def test_slow_parameters_take_the_small_learning_rate():
  (after,), _ = run(slow_lr=0.1, grads=jax.tree.map(jnp.ones_like, PARAMS))
  assert float(after["mixer"]["log_dt"][0, 0]) == pytest.approx(2 - 0.01)
  assert float(after["mixer"]["kernel"][0, 0]) == pytest.approx(2 - 0.1)


def test_first_row_that_matches_sets_what_it_names():
  rows = [("log_dt$", {"lr": 0.5}), ("mixer/", {"lr": 0.0, "weight_decay": 0.3})]
  rules = optimizer.assign(declared(PARAMS), weight_decay=0.1, slow_lr=0.01, groups=rows)
  assert rules["mixer/log_dt"] == optimizer.Group(0.5, 0.0)
  assert rules["mixer/kernel"] == rules["mixer/bias"] == optimizer.Group(0.0, 0.3)
  assert rules["embed/table"] == optimizer.Group(1.0, 0.1)


@pytest.mark.parametrize(
  "settings, words",
  [
    ({"groups": [("nothing", {"lr": 0.1})]}, ["'nothing'", "matches no parameter", "embed/table"]),
    ({"groups": [("mixer", {"lr": 0.1}), ("bias", {"lr": 0.1})]}, ["'bias'", "earlier row"]),
    ({"groups": [("mixer", {"rate": 0.1})]}, ["'mixer'", "rate", "lr, weight_decay"]),
    ({"groups": [("mixer(", {"lr": 0.1})]}, ["mixer("]),
    ({"name": "sdg"}, ["optimizer.name='sdg'", "sgd", "lion"]),
    ({"schedule": "cos"}, ["optimizer.schedule='cos'", "cosine"]),
    ({"warmup": -1}, ["optimizer.warmup=-1"]),
    ({"warmup": 10}, ["optimizer.warmup=10", "steps=10", "never reach"]),
    ({"schedule": "wsd", "decay": -0.5}, ["optimizer.decay=-0.5"]),
    ({"schedule": "wsd", "decay": 2.5}, ["optimizer.decay=2.5", "whole number"]),
    ({"schedule": "wsd", "decay": math.nan}, ["optimizer.decay=nan"]),
    ({"schedule": "wsd", "decay": 8, "warmup": 3}, ["optimizer.warmup=3", "optimizer.decay=8", "steps=10"]),
    ({"lr": math.nan}, ["optimizer.lr=nan"]),
    ({"lr": math.inf}, ["optimizer.lr=inf"]),
    ({"eps": -1.0}, ["optimizer.eps=-1.0"]),
    ({"b2": math.nan}, ["optimizer.b2=nan"]),
    ({"weight_decay": math.inf}, ["optimizer.weight_decay=inf"]),
    ({"groups": [("mixer", {"lr": math.nan})]}, ["'mixer'", "finite"]),
    ({"clip": -1.0}, ["optimizer.clip=-1.0"]),
    ({"skip": -1.0}, ["optimizer.skip=-1.0"]),
    ({"spike": 0.5}, ["optimizer.spike=0.5", "a factor above 1"]),
    ({"name": "schedule_free_adamw"}, ["optimizer.schedule='cosine'", "schedule=constant"]),
    ({"name": "schedule_free_adamw", "schedule": "constant", "b1": 0.0}, ["optimizer.b1=0"]),
    ({"name": "schedule_free_adamw", "schedule": "constant", "ema": 0.9}, ["optimizer.ema=0.9"]),
    ({"accumulate": 0}, ["optimizer.accumulate=0"]),
    ({"ema": 1.0}, ["optimizer.ema=1.0"]),
    ({"final_lr": 2.0}, ["optimizer.final_lr=2.0", "fraction"]),
  ],
)
def test_a_bad_setting_is_named(settings, words):
  with pytest.raises(ValueError) as error:
    optimizer.build(PARAMS, steps=10, **settings)
  assert all(word in str(error.value) for word in words), str(error.value)


MATRICES = {
  "embed": {"table": (("vocab", "embed"), (5, 4))},
  "layer": {"in": (("layers", "embed", "inner"), (2, 4, 6)), "conv": (("layers", None, "inner"), (2, 3, 6))},
  "experts": (("layers", "expert", "embed", "mlp"), (2, 3, 4, 6)),
  "read_out": (("embed", "vocab"), (4, 5)),
}


def matrices():
  """Parameters with the names of their axes, all different numbers, and the same without their boxes."""
  leaf = lambda path, about: Parameter(
    jax.random.normal(jax.random.key(len(str(path))), about[1]), names=about[0], slow=False
  )
  is_about = lambda node: isinstance(node, tuple)
  boxed = jax.tree_util.tree_map_with_path(leaf, MATRICES, is_leaf=is_about)
  return boxed, nn.meta.unbox(boxed)


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_every_optimizer_descends_and_goes_on_from_what_was_stored(name):
  """Ten updates towards 1; five, storage as plain arrays, and five more end at the same numbers."""
  boxed, start = matrices()
  tx = optimizer.build(boxed, steps=10, name=name, lr=0.05, schedule="constant", weight_decay=0.01, clip=1.0)
  loss = lambda params: sum(jnp.sum((x - 1) ** 2) for x in jax.tree.leaves(params))

  @jax.jit
  def update(params, state):
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state

  def train(params, state, updates):
    for _ in range(updates):
      params, state = update(params, state)
    return params, state

  whole = train(start, tx.init(start), 10)
  half = jax.tree.map(np.asarray, train(start, tx.init(start), 5))
  stored = jax.tree.leaves(half)
  restored = jax.tree.unflatten(jax.tree.structure((start, tx.init(start))), stored)
  resumed = train(*restored, 5)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  evaluated = optimizer.averaged(whole[1], whole[0])
  for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(evaluated)):
    assert float(jnp.sum((after - 1) ** 2)) < float(jnp.sum((before - 1) ** 2))


def test_muon_makes_hidden_matrices_orthogonal_and_is_adam_for_the_rest():
  boxed, start = matrices()
  grads = jax.tree.map(jnp.sin, start)
  one = lambda name: optimizer.build(boxed, steps=10, name=name, lr=1.0, schedule="constant", b1=0.9)
  updates = {}
  for name in ("muon", "adam"):
    tx = one(name)
    updates[name] = flat(jax.jit(tx.update)(grads, tx.init(start), start)[0])
  for path, update in updates["muon"].items():
    if path in ("layer/in", "experts"):
      # the five iterations bring singular values near 1, not to it; times 0.2 sqrt(6)
      values = np.linalg.svd(update, compute_uv=False) / (0.2 * 6**0.5)
      assert (abs(values - 1) < 0.4).all(), (path, values)
    else:
      np.testing.assert_allclose(update, updates["adam"][path], rtol=1e-5)


def test_schedule_free_is_evaluated_at_the_average():
  """Defazio et al. 2024: z takes the steps, x averages them, gradients are taken at y = 0.9 x + 0.1 z."""
  params = {"w": jnp.zeros((2, 2))}
  tx = optimizer.build(params, steps=4, name="schedule_free_adamw", lr=0.1, schedule="constant", b1=0.9, b2=0.9)
  state, x, z = tx.init(params), np.zeros((2, 2)), np.zeros((2, 2))
  for n in range(1, 4):
    updates, state = tx.update({"w": jnp.ones((2, 2))}, state, params)
    params = optax.apply_updates(params, updates)
    z = z - 0.1  # a gradient of 1 divided by its root mean square
    x = x + (z - x) / n
    np.testing.assert_allclose(params["w"], 0.9 * x + 0.1 * z, rtol=1e-5)
    np.testing.assert_allclose(optimizer.averaged(state, params)["w"], x, rtol=1e-5)
  renewed = jax.tree.map(lambda node: optimizer.renewed(node, params), state, is_leaf=optimizer.is_average)
  np.testing.assert_allclose(optimizer.averaged(renewed, params)["w"], params["w"], rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.5}, {"name": "schedule_free_adamw", "schedule": "constant"}])
def test_small_updates_of_bfloat16_add_up_in_float32(settings):
  """A hundred updates of 1e-4 each change a parameter of 1 by a hundredth, where one of them would be rounded away."""
  section = dict(steps=1000, lr=1e-4, schedule="constant", eps=0.0) | settings
  params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(3)}
  tx = optimizer.build(params, **section)
  state = tx.init(params)
  exact = jax.tree.map(lambda z: z.astype(jnp.float32), params)
  tx_exact = optimizer.build(exact, **section)
  state_exact = tx_exact.init(exact)
  for _ in range(100):
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    params = optax.apply_updates(params, updates)
    updates, state_exact = tx_exact.update(jax.tree.map(jnp.ones_like, exact), state_exact, exact)
    exact = optax.apply_updates(exact, updates)
  assert params["w"].dtype == jnp.bfloat16
  for name in params:
    np.testing.assert_array_equal(params[name], exact[name].astype(params[name].dtype))
    assert np.all(np.asarray(params[name], np.float32) < 0.999)
  mean = optimizer.averaged(state, params)
  for name in params:
    np.testing.assert_allclose(
      np.asarray(mean[name], np.float32), optimizer.averaged(state_exact, exact)[name], rtol=2**-8
    )
  fresh = jax.tree.map(lambda node: optimizer.renewed(node, params), state, is_leaf=optimizer.is_average)
  assert fresh.params["w"].dtype == jnp.float32
  np.testing.assert_array_equal(fresh.params["w"], params["w"].astype(jnp.float32))
  look = jax.tree.map(optimizer.without_moments, state, is_leaf=optimizer.is_average)
  jax.tree.map(np.testing.assert_array_equal, optimizer.averaged(look, params), mean)


def left_out(norms, **settings):
  """Yields for each norm of the gradient whether parameters and moments stayed, and the rate of the schedule."""
  tx = optimizer.build(PARAMS, steps=1000, name="adam", lr=0.1, schedule="linear", **settings)
  state = tx.init(PARAMS)
  moments = lambda state: jax.tree.leaves(state.inner[2].mu)
  update = jax.jit(tx.update)
  for count, norm in enumerate(norms, 1):
    updates, after = update(jax.tree.map(jnp.ones_like, PARAMS), state, PARAMS, grad_norm=jnp.float32(norm))
    moved = {bool((np.asarray(x) != 0).all()) for x in jax.tree.leaves(updates)}
    same = {np.array_equal(a, b) for a, b in zip(moments(state), moments(after))}
    assert len(moved) == 1
    assert moved != same
    assert after.inner[3].count == count
    state = after
    yield same == {True}


def test_an_update_with_too_large_a_gradient_is_left_out_and_the_schedule_goes_on():
  assert list(left_out([4.0, 6.0, 5.0, math.nan], skip=5.0)) == [False, True, False, True]


def test_a_spike_is_left_out_once_it_is_known_what_is_usual():
  usual = [1.0] * SETTLED
  assert list(left_out([1.0, 50.0, *usual], spike=30.0)) == [False] * (SETTLED + 2)
  found = list(left_out([*usual, 2.9, 3.2, math.inf, 1.0], spike=3.0))
  assert found[SETTLED:] == [False, True, True, False]
  # gradients that stay large are not left out for ever
  found = list(left_out([*usual, *[4.0] * 40], spike=3.0))
  assert found[SETTLED]
  assert not found[-1]
  assert skipped({}) == {}


def test_over_a_larger_width_matrices_that_read_features_learn_slower():
  boxed, start = matrices()
  settings = dict(steps=10, name="sgd", b1=0.0, lr=1.0, schedule="constant", base_width=1)
  tx = optimizer.build(boxed, **settings)
  updates, _ = tx.update(jax.tree.map(jnp.ones_like, start), tx.init(start), start)
  assert {path: -float(x.flat[0]) for path, x in flat(updates).items()} == {
    "embed/table": 1.0,
    "layer/in": 0.25,
    "layer/conv": 1.0,
    "experts": 0.25,
    "read_out": 0.25,
  }
  with pytest.raises(Mistake, match="base_width=1"):
    optimizer.build(PARAMS, **settings)


@pytest.mark.parametrize(
  "name, slower",
  [
    # x_proj is read by few, and dt_proj reads a sixteenth of the width
    ("mamba", {"in_proj/kernel", "x_proj/kernel", "dt_proj/kernel", "out_proj/kernel"}),
    ("lru", {"gate/kernel", "out_proj/kernel"}),
    ("gru", {"W", "R"}),
    ("h3", {"q_proj/kernel", "k_proj/kernel", "v_proj/kernel", "out_proj/kernel"}),
  ],
)
def test_what_a_channel_has_for_itself_learns_as_fast_at_every_width(name, slower):
  """Taps of convolutions and a channel's own states are as many at every width."""
  mixer = build(name, width=8)
  params = jax.eval_shape(lambda: mixer.init(jax.random.key(0), jnp.zeros((1, 4, 8))))["params"]
  factors = optimizer._over_width(optimizer._paths(params), 2)
  assert {path for path, factor in factors.items() if factor != 1} == slower
  assert set(factors.values()) <= {0.25, 1.0}


def test_one_cycle():
  rate = schedule.learning_rate(lr=2.0, schedule="one_cycle", warmup=4, final_lr=0.1, steps=14)
  assert [float(rate(i)) for i in (0, 2, 4, 9, 14, 20)] == pytest.approx([0.08, 1.04, 2.0, 1.1, 0.2, 0.2])
  rate = schedule.learning_rate(lr=2.0, schedule="one_cycle", steps=10)
  assert [float(rate(i)) for i in (3, 10)] == pytest.approx([2.0, 2 / 250_000])


@pytest.mark.parametrize("steps", [20, 40])
@pytest.mark.parametrize("decay", [0.25, 5])
def test_wsd_decays_over_the_last_updates_alone(steps, decay):
  rate = schedule.learning_rate(lr=2.0, schedule="wsd", warmup=4, final_lr=0.1, decay=decay, steps=steps)
  falling = decay if decay >= 1 else int(decay * steps)
  assert [rate(i) for i in (0, 1, 3)] == pytest.approx([0.5, 1.0, 2.0])
  assert {float(rate(i)) for i in range(3, steps - falling + 1)} == {2.0}
  line = [2 * (0.1 + 0.9 * (falling - i) / falling) for i in range(falling + 1)]
  assert [rate(steps - falling + i) for i in range(falling + 1)] == pytest.approx(line)
  assert rate(steps + 9) == pytest.approx(0.2)


def test_inverse_square_root():
  """Vaswani et al. 2017: from the peak at the end of the warm-up on, the rate falls as 1/sqrt(n)."""
  rate = schedule.learning_rate(lr=2.0, schedule="inverse_sqrt", warmup=4, steps=10)
  assert [rate(i) for i in (0, 3, 4, 12, 60)] == pytest.approx([0.5, 2.0, 2.0, 2 / 3**0.5, 2 / 15**0.5])
  assert float(rate(jnp.int32(12))) == pytest.approx(2 / 3**0.5)
  low = schedule.learning_rate(lr=2.0, schedule="inverse_sqrt", final_lr=0.5, steps=10)
  assert [low(i) for i in (0, 3, 100)] == pytest.approx([2.0, 1.0, 1.0])


@pytest.mark.parametrize(
  "kind, done, words",
  [
    ("cosine", 5, ["drawn anew", "schedule=wsd"]),
    ("one_cycle", 5, ["drawn anew"]),
    ("linear", 5, ["drawn anew"]),
    ("wsd", 90, ["decays from step 180 on", "is what it was"]),
    ("wsd", 91, ["decays since step 90", "--from-step", "step 90 or before"]),
    ("constant", 5, []),
    ("inverse_sqrt", 5, []),
    # nothing has been trained
    ("cosine", 0, []),
    ("wsd", 0, []),
  ],
)
def test_an_extended_run_says_what_its_schedule_does(kind, done, words):
  says = schedule.extended({"schedule": kind}, 100, 200, done)
  assert bool(says) == bool(words)
  assert all(word in says for word in words), says
  assert not schedule.extended({"schedule": kind}, 100, 100, done)


def test_schedules():
  rate = schedule.learning_rate(lr=2.0, schedule="cosine", warmup=4, final_lr=0.1, steps=14)
  assert [float(rate(i)) for i in (0, 1, 3, 4, 14, 20)] == pytest.approx([0.5, 1.0, 2.0, 2.0, 0.2, 0.2])
  assert float(rate(9)) == pytest.approx(1.1)
  assert float(rate(jnp.int32(9))) == pytest.approx(1.1)
  rate = schedule.learning_rate(lr=2.0, schedule="linear", warmup=0, final_lr=0.0, steps=10)
  assert [float(rate(i)) for i in (0, 5, 10)] == pytest.approx([2.0, 1.0, 0.0])
  rate = schedule.learning_rate(lr=2.0, schedule="constant", warmup=2, final_lr=0.0, steps=10)
  assert [float(rate(i)) for i in (0, 1, 9)] == pytest.approx([1.0, 2.0, 2.0])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_rate_of_an_update_is_that_of_its_number(accumulate):
  """Whatever number of batches makes an update: the logged rate is rate(step)."""
  ones = jax.tree.map(jnp.ones_like, PARAMS)
  history, _ = run(grads=ones, schedule="linear", steps=4, accumulate=accumulate, updates=4)
  values = [float(params["mixer"]["bias"][0]) for params in history]
  rate = schedule.learning_rate(lr=0.1, schedule="linear", warmup=0, final_lr=0.0, steps=4)
  assert values == pytest.approx([2 - float(sum(rate(i) for i in range(n + 1))) for n in range(4)])


def test_average_follows_the_parameters():
  history, state = run(grads=jax.tree.map(jnp.ones_like, PARAMS), ema=0.15, updates=3)
  values = [float(params["mixer"]["bias"][0]) for params in history]
  expected = 2.0
  for n, value in enumerate(values):
    keep = min(0.15, (1 + n) / (10 + n))
    expected = keep * expected + (1 - keep) * value
  averaged = optimizer.averaged(state, history[-1])
  assert float(averaged["mixer"]["bias"][0]) == pytest.approx(expected)
  assert optimizer.averaged(optax.EmptyState(), history[-1]) is history[-1]


def test_clipping_bounds_the_update():
  (after,), _ = run(grads=jax.tree.map(lambda x: 100 * jnp.ones_like(x), PARAMS), clip=1.0, lr=1.0)
  moved = jax.tree.map(lambda a, b: a - b, PARAMS, after)
  assert float(optax.global_norm(moved)) == pytest.approx(1.0, rel=1e-5)


def test_a_parameter_is_slow_where_its_own_mixer_says_so():
  """GSS trains its C slowly and S4D does not: one beside the other changes neither."""
  letters = {"g": dict(name="gss", inner=4, outer=8, state=2), "s": dict(name="s4d", state=2)}
  stack = build("hybrids.body.stack.Stack", width=8, pattern="gs", depth=2, letters=letters)
  params = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 1, 8)))["params"]
  rules = optimizer.assign(params, weight_decay=0.1, slow_lr=0.01, groups=())
  found = {path.replace("mixer/", ""): rule for path, rule in rules.items()}
  assert found["g/C_re"] == optimizer.Group(0.01, 0.0)
  assert found["s/C_re"] == optimizer.Group(1.0, 0.1)
  assert found["s/A_im"] == optimizer.Group(0.01, 0.0)
