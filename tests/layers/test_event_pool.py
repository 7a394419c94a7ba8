"""Windows of events pooled into one event each, by themselves and between the layers of a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from configs import shd
from data.task import build_task
from hybrids.body.event_stages import EventStages
from hybrids.model import build_model
from hybrids.objective import measure
from layers.event_pool import event_pool
from tests.contract.case import jit

X = jax.random.normal(jax.random.key(1), (2, 9, 4))
GAPS = jax.random.exponential(jax.random.key(2), (2, 9))


@pytest.mark.parametrize("mode", ["first", "last", "mean", "time"])
def test_a_window_of_events_becomes_one_with_all_their_time(mode):
  """Nine events in windows of four: two, and one left over; a row of six has one."""
  x, gaps = np.asarray(X), np.asarray(GAPS).copy()
  gaps[0, :4] = 0
  pick = {
    "first": lambda w, g: w[0],
    "last": lambda w, g: w[-1],
    "mean": lambda w, g: w.mean(axis=0),
    "time": lambda w, g: np.average(w, axis=0, weights=g + 1e-6),
  }[mode]
  lengths = np.array([9, 6])
  spoilt = [np.where(np.arange(9) < lengths[:, None], z, np.nan) for z in (x.transpose(2, 0, 1), gaps)]
  y, dt, left = event_pool(
    jnp.asarray(spoilt[0].transpose(1, 2, 0)), jnp.asarray(spoilt[1]), stride=4, mode=mode, lengths=jnp.asarray(lengths)
  )
  np.testing.assert_array_equal(left, [2, 1])
  for row, window in ((0, 0), (0, 1), (1, 0)):
    there = slice(4 * window, 4 * window + 4)
    np.testing.assert_allclose(y[row, window], pick(x[row, there], gaps[row, there]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dt[row, window], gaps[row, there].sum(), rtol=1e-6)
  assert not y[1, 1].any()
  assert not dt[1, 1].any()


def test_stages_leave_one_event_of_each_window_with_all_its_time():
  """Layers that add nothing leave pooled inputs; others see no padding, and gaps of their own stage."""
  layer = {"name": "event_ssm", "state": 4}
  stage = dict(pattern="m", depth=2, letters={"m": layer}, branch={"norm": {"name": "layer"}})
  body = EventStages(width=4, stages=(stage, stage), pool=2)
  x, gaps = jax.random.normal(jax.random.key(3), (2, 9, 4)), GAPS
  lengths = jnp.array([9, 5])
  past = jnp.arange(9) >= lengths[:, None]
  spoilt, late = jnp.where(past[..., None], jnp.nan, x), jnp.where(past, jnp.nan, gaps)
  variables = meta.unbox(body.init(jax.random.key(0), x))
  run = jit(lambda v, x, dt, n=None: body.apply(v, x, lengths=n, side={"dt": dt}))
  y = run(variables, spoilt, late, lengths)
  assert y.shape == (2, 2, 4)
  np.testing.assert_allclose(y[1, :1], run(variables, x[1:, :5], gaps[1:, :5])[0, :1], atol=1e-5)
  assert not y[1, 1].any()
  pooled, left = body.ends(late, lengths)
  np.testing.assert_allclose(pooled[0], gaps[0, :8].reshape(2, 4).sum(1), rtol=1e-6)
  np.testing.assert_array_equal(left, [2, 1])
  # the second stage's layers decay by the gaps that the first has summed
  assert np.abs(run(variables, x, gaps.at[:, 7].add(3)) - y)[0, 1].max() > 1e-4
  still = jax.tree.map(jnp.zeros_like, variables)
  np.testing.assert_allclose(run(still, x, gaps)[0], x[0, :8].reshape(2, 4, 4).mean(axis=1), atol=1e-6)


def test_spikes_are_classified_with_pooling_between_layers(tmp_path):
  """A step of the published settings but for sizes: every parameter has a gradient, and the loss falls."""
  rng = np.random.default_rng(0)
  sizes = rng.integers(20, 40, 8)
  events = dict(x=rng.integers(0, 700, (sizes.sum(), 1)), y=np.arange(8) % 2, offsets=[0, *np.cumsum(sizes)])
  times = np.concatenate([np.sort(rng.random(n)) for n in sizes])
  np.savez(tmp_path / "shd.npz", **events, times=times, split=np.array(["train"] * 4 + ["test"] * 4))
  small = "width=8,depth=4,m.state=8,m.blocks=1,labels=2,length=40,batch=3,window=2,dropout=0"
  c = shd.get_config(f"files={tmp_path}/shd.npz,{small}")
  assert [stage["depth"] for stage in c.model.body.stages] == [2, 2]
  task = build_task(**c.data.to_dict())
  model = build_model(task, **c.model.to_dict())
  batch = {key: jnp.asarray(rows) for key, rows in next(task.train()).items()}
  variables = meta.unbox(jit(model.init)(jax.random.key(0), batch["inputs"]))
  run = jit(jax.value_and_grad(lambda v: measure(model, v, batch, rngs={})[0]))
  before, gradient = run(variables)
  assert all(np.isfinite(leaf).all() and leaf.any() for leaf in jax.tree.leaves(gradient["params"]))
  after, _ = run(jax.tree.map(lambda p, g: p - 1e-3 * g, variables, gradient))
  assert after < before


@pytest.mark.parametrize("kwargs", [dict(stride=0), dict(stride=2, mode="max")])
def test_pooling_refuses_what_it_does_not_know(kwargs):
  with pytest.raises(ValueError, match="stride=0; it must|mode='max'; choose"):
    event_pool(X, GAPS, **kwargs)
