"""The time axis of ops and mixers, divided over devices.

In the default suite the devices are the rows of a `vmap` that bears the name of the mesh's axis; the slow suite runs
four and eight virtual devices, in processes of their own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from kernels import sequence_parallel
from kernels.delta_rule import OVER as DELTA_RULE
from kernels.delta_rule import reference as delta_rule
from kernels.sequence_parallel import AXIS, InTurn, Over
from kernels.short_conv import reference as short_conv
from tests import child, mixers
from tests.kernels.compare import QUICK, assert_close, cotangents, masks
from tests.kernels.ops import OPS

DEVICES, T = 3, 12
# ops of which no device gathers an array of all tokens
WITHOUT_GATHERS = (
  *("gated_linear_attention, bonus", "delta_rule, general", "lti", "rg_lru", "short_conv", "max_scan", "long_conv"),
  *("attention", "attention, two heads of keys"),
)
# every device has all keys of the last two
OTHERS = (
  *("linear_scan", "linear_scan, one complex decay", "selective_scan", "ssd", "lti, definition"),
  *("attention, one head of keys", "attention, no heads to divide"),
)


def on_rows(over, run, axes, args, y_bar, last_bar):
  """Returns outputs and gradients of `run`, its time divided over rows of arrays as `over` divides it over devices."""
  cut = lambda z: jnp.stack(jnp.split(z, DEVICES, axis=1))
  timed = ["t" in letters.split() for letters in axes]
  floats = [i for i, z in enumerate(args) if jnp.issubdtype(z.dtype, jnp.inexact)]

  def device(y_bar, *args):
    out, pull = jax.vjp(lambda *args: over.part(run, DEVICES, *args), *args)
    # all have the last state, and so each a share of its cotangent
    bars = pull((y_bar, last_bar / DEVICES))
    return out, [bars[i] for i in floats]

  rows = jax.vmap(device, (0, *(0 if has else None for has in timed)), axis_name=AXIS, axis_size=DEVICES)
  given = (cut(z) if has else z for has, z in zip(timed, args))
  (y, last), bars = jax.jit(rows, compiler_options=QUICK)(cut(y_bar), *given)
  join = lambda z: jnp.concatenate(list(z), axis=1)
  return (join(y), last[-1]), [join(bar) if timed[i] else bar.sum(0) for i, bar in zip(floats, bars)]


def assert_rows_equal_one_device(over, run, axes, args):
  """Holds values and gradients of time divided over rows to those of all time at once."""
  args = tuple(map(jnp.asarray, args))
  shapes = jax.eval_shape(run, *args)
  y_bar, last_bar = cotangents(shapes, {})
  floats = [i for i, z in enumerate(args) if jnp.issubdtype(z.dtype, jnp.inexact)]

  @functools.partial(jax.jit, compiler_options=QUICK)
  def whole(*args):
    out, pull = jax.vjp(run, *args)
    bars = pull((y_bar, last_bar))
    return out, [bars[i] for i in floats]

  assert_close(on_rows(over, run, axes, args, jnp.asarray(y_bar), jnp.asarray(last_bar)), whole(*args), 3e-5)


def reset_and_arrays(name):
  """Returns the arrays of an op, and document starts in the first device's part and at the last one's first token."""
  reset = np.zeros((2, T), bool)
  reset[0, 2] = reset[1, 2 * T // DEVICES] = True
  return reset, OPS[name].draw(T)


def test_devices_find_the_states_that_enter_their_parts_by_prefix():
  reset, z = reset_and_arrays("delta_rule, general")
  given = *(z[name] for name in ("q", "k", "v", "w", "u", "log_a", "S")), reset
  assert_rows_equal_one_device(DELTA_RULE, delta_rule.delta_rule, DELTA_RULE.axes, given)


def test_rows_end_on_other_devices_than_the_last():
  reset, z = reset_and_arrays("short_conv")
  axes = "b t e", "w e", "b v e", "e", "b t", "b"
  over = Over(axes, "b t e", 2, sequence_parallel.Neighbour(), lengths=5)
  lengths = np.array([0, 7])

  def run(*args):
    y, last = short_conv.short_conv(*args)
    # as every op does in its padding, where parts of rows have no length of their own
    return jnp.zeros_like(y), last

  assert_rows_equal_one_device(over, run, axes, (*z.values(), reset, lengths))


def test_recurrences_that_are_not_linear_run_in_turn():
  def run(h, x):
    h, y = jax.lax.scan(lambda h, x: (jnp.tanh(2 * h + x),) * 2, h, x.swapaxes(0, 1))
    return y.swapaxes(0, 1), h

  axes = "b e", "b t e"
  rng = np.random.default_rng(0)
  given = tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (2, T, 3)))
  assert_rows_equal_one_device(Over(axes, "b t e", 0, InTurn()), run, axes, given)


def test_one_device_computes_as_without_a_mesh():
  where = jax.tree.map(jnp.asarray, masks(T))
  program = jax.make_jaxpr(lambda *z: OPS["ssd"].run(*z, **where))(*OPS["ssd"].draw(T).values())
  assert "shard_map" not in str(program)
  assert sequence_parallel.count() == 1


def run_on_devices(devices, tokens, *names):
  """Runs comparisons of `tests.kernels.sequence_on_a_mesh`, and returns the lines that they print."""
  command = "-m", "tests.kernels.sequence_on_a_mesh", str(tokens), *names
  return child.python(*command, JAX_NUM_CPU_DEVICES=str(devices)).splitlines()


@pytest.mark.slow
def test_ops_on_devices_that_share_the_time_equal_one_device():
  printed = run_on_devices(4, 48, *(f"op:{name}" for name in (*WITHOUT_GATHERS, *OTHERS)))
  assert [line for line in printed[: len(WITHOUT_GATHERS)] if not line.endswith("gathers []")] == []


# a mixer with complex states, which XLA adds up over devices in its own way, one that runs in turn, and what a model
# has besides its mixers
ON_TWO = ("mixer:s4d", "mixer:gru", "op:layer of attention", "op:loss by chunks", "op:experts")


def has_a_state(row):
  name = row.partition(",")[0]
  return build(mixers.path(name), width=8, **mixers.table("SMALL")[row]).STATE != "none"


def test_some_on_devices_that_share_the_time_equal_one_device():
  """Longer than most tests of this suite, as the only one of it with such devices."""
  assert run_on_devices(2, 96, *ON_TWO) == [f"{name} equal; gathers []" for name in ON_TWO]


@pytest.mark.slow
def test_mixers_on_devices_that_share_the_time_equal_one_device():
  run_on_devices(8, 512, *(f"mixer:{row}" for row in mixers.table("SMALL") if has_a_state(row)))
