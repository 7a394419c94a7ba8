"""The update: what it reads, what it carries, and what it says about numbers that are not finite."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.model import Model, side_inputs
from tests.training import toy
from training import optimizer, sharding, state, step

TASK = toy.Task()


@functools.cache
def make(model=toy.Model(), task=TASK, stateful=False, lr=0.1):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(mesh):
    shapes = state.variables_shape(model, task)
    tx = optimizer.build(shapes["params"], steps=10, name="sgd", lr=lr, schedule="constant", b1=0.0)
    init, like = state.blueprint(model, task, tx, mesh, stateful=stateful)
    update = step.make_update(model, tx, like=like)
    return init, update, step.make_forget(like=like)


def begin(**settings):
  """A fresh state, and functions that are compiled once for all tests."""
  init, update, forget = make(**settings)
  return init(0), update, forget


def test_update_is_one_step_of_gradient_descent():
  first, update, _ = begin()
  params = jax.tree.map(np.asarray, first.params)
  batch = TASK.make(0)

  def objective(params):
    logits = toy.Model().apply({"params": params}, batch["inputs"], reset=batch["reset"])
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][..., None], -1)[..., 0]
    return (batch["weights"] * nats).sum() / batch["weights"].sum()

  value, gradient = jax.value_and_grad(objective)(params)
  after = update(first, batch)
  jax.tree.map(lambda a, b, g: np.testing.assert_allclose(a, b - 0.1 * g, atol=1e-6), after.params, params, gradient)
  row = step.report(after.seen, ["accuracy"])
  assert row["train/loss"] == pytest.approx(float(value), rel=1e-6)
  assert set(row) == {"train/loss", "train/accuracy", "train/grad_norm"}
  assert int(after.step) == 1


def test_update_compiles_once():
  now, update, forget = begin()
  for i in range(4):
    now = update(now, TASK.make(i))
    now = now._replace(seen=forget()) if i == 1 else now
  assert update._cache_size() == 1


def test_dropout_depends_on_seed_and_step_alone():
  def losses(seed):
    now, update, forget = begin(model=toy.Model(dropout=0.5), lr=0.0)
    now = now._replace(rng=jax.random.PRNGKey(seed))
    found = []
    for _ in range(2):
      now = update(now, TASK.make(0))
      found.append(float(now.seen.sums["loss"][0]))
      now = now._replace(seen=forget())
    return found

  first, again, other = losses(1), losses(1), losses(2)
  assert first == again
  assert len({*first, *other}) == 4


def test_first_bad_step_is_named_and_kept():
  now, update, _ = begin()
  for i in range(4):
    batch = TASK.make(i)
    if i == 1:
      # one infinite weight stands for an exploding loss
      batch["weights"] = np.full_like(batch["weights"], np.inf)
    now = update(now, batch)
    if i == 0:
      step.check_finite(now.seen)
  with pytest.raises(FloatingPointError, match="step 2;"):
    step.check_finite(now.seen)


def test_a_stateful_run_carries_its_state_and_resets_clear_it():
  long = toy.Task(length=12)
  whole = long.make(0)
  halves = [{key: value[:, i : i + 6] for key, value in whole.items()} for i in (0, 6)]
  short = toy.Task(length=6)
  now, update, _ = begin(task=short, stateful=True, lr=0.0)
  other, plain, _ = begin(task=long, lr=0.0)
  for half in halves:
    now = update(now, half)
  expected = plain(other, whole)
  for name in ("loss", "accuracy"):
    assert float(now.seen.sums[name][0]) == pytest.approx(float(expected.seen.sums[name][0]), rel=1e-6)
  last = toy.Model().apply(
    {"params": now.params}, whole["inputs"], np.zeros((8, 8), np.float32), reset=whole["reset"], method="prefill"
  )[1]
  np.testing.assert_allclose(now.carry, last, atol=1e-6)


def test_a_state_that_grows_is_not_carried():
  class Growing(toy.Model):
    STATE = "grows"

  with pytest.raises(ValueError, match="data.stateful=True.*'grows'"):
    state.carries(Growing(), stateful=True)
  assert not state.carries(Growing(), stateful=False)
  assert state.carries(toy.Model(), stateful=True)


def test_gaps_of_a_batch_reach_the_mixers_and_the_pool():
  """One event twice as late changes its own row, and no other."""
  body = {"name": "stack", "depth": 1, "pattern": "m", "letters": {"m": {"name": "event_ssm", "state": 4}}}
  model = Model(features=1, classes=3, width=4, body=body, head={"name": "classifier", "pool": "time"})
  inputs = np.random.default_rng(0).standard_normal((2, 5, 1)).astype(np.float32)
  run = jax.jit(lambda variables, batch: model.apply(variables, batch["inputs"], **side_inputs(batch)))
  variables = jax.jit(model.init)(jax.random.key(0), inputs)
  even, late = np.ones((2, 5), np.float32), np.ones((2, 5), np.float32)
  late[0, 3] = 2
  plain, same, other = (run(variables, {"inputs": inputs} | dt) for dt in ({}, {"dt": even}, {"dt": late}))
  np.testing.assert_allclose(same, plain, atol=1e-6)
  np.testing.assert_array_equal(other[1], same[1])
  assert np.abs(other[0] - same[0]).max() > 1e-4


def split(batch, rows):
  return [{key: value[part] for key, value in batch.items()} for part in np.array_split(np.arange(8), rows)]


@pytest.mark.parametrize("parts", [2, 4])
def test_several_batches_make_the_update_of_one_large_batch(parts):
  """Rows of very different weight: dividing by each batch's own weight would be far off."""
  batch = TASK.make(0)
  batch["weights"][:4] *= np.array([0, 0, 0, 1, 0, 0], np.float32)
  batch["weights"][6:] = 0
  first, update, _ = begin()
  whole = jax.tree.map(np.asarray, update(first, batch))
  first, _, _ = begin()
  several = jax.tree.map(np.asarray, update(first, *split(batch, parts)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), several.params, whole.params)
  row, other = step.report(several.seen, ["accuracy"]), step.report(whole.seen, ["accuracy"])
  assert row == pytest.approx(other, rel=1e-5)
  assert int(several.step) == 1


class Counting(toy.Model):
  """Counts the calls that may change its buffer, as the selection bias of experts is changed."""

  def setup(self):
    super().setup()
    self.calls = self.variable("buffers", "calls", jnp.zeros, ())

  def resume_loss(self, batch, state):
    if self.is_mutable_collection("buffers"):
      self.calls.value += 1
    return super().resume_loss(batch, state)


@pytest.mark.parametrize("stateful", [False, True])
def test_every_batch_may_change_the_buffers(stateful):
  now, update, _ = begin(model=Counting(), stateful=stateful)
  now = update(update(now, TASK.make(0)), TASK.make(1), TASK.make(2))
  assert float(now.buffers["buffers"]["calls"]) == 3


class Sowing(toy.Model):
  """Adds the mean of the inputs to the objective."""

  def resume_loss(self, batch, state):
    self.sow("losses", "size", jnp.mean(batch["inputs"].astype(jnp.float32)))
    return super().resume_loss(batch, state)


@pytest.mark.parametrize("stateful", [False, True])
def test_what_is_sown_is_logged_as_the_objective_weighs_it(stateful):
  batches = [TASK.make(0), TASK.make(1)]
  batches[1]["weights"][1:] = 0
  weights = [batch["weights"].sum() for batch in batches]
  expected = np.average([batch["inputs"].mean() for batch in batches], weights=weights)
  report = lambda now: step.report(now.seen, [])["train/losses/size"]
  now, update, _ = begin(model=Sowing(), stateful=stateful, lr=0.0)
  assert report(update(now, *batches)) == pytest.approx(expected, rel=1e-6)
  now, _, _ = begin(model=Sowing(), stateful=stateful, lr=0.0)
  assert report(update(update(now, batches[0]), batches[1])) == pytest.approx(expected, rel=1e-6)


def test_the_state_goes_from_batch_to_batch_within_an_update():
  batches = [TASK.make(0), TASK.make(1)]
  now, update, _ = begin(stateful=True, lr=0.0)
  apart = update(update(now, batches[0]), batches[1])
  now, _, _ = begin(stateful=True, lr=0.0)
  np.testing.assert_allclose(update(now, *batches).carry, apart.carry, rtol=1e-6)
