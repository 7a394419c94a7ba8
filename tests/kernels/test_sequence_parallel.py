"""The time axis of ops and mixers, divided over devices.

In the default suite the devices are the rows of a `vmap` that bears the name of the mesh's axis; the slow suite runs
four and eight virtual devices, in processes of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import sequence_parallel
from kernels.delta_rule import OVER as DELTA_RULE
from kernels.delta_rule import reference as delta_rule
from kernels.sequence_parallel import AXIS, InTurn, Over
from kernels.short_conv import reference as short_conv
from tests import mixers
from tests.kernels.compare import assert_close, masks, values_and_gradients
from tests.kernels.ops import OPS

DEVICES, T = 3, 12
OTHERS = (
  "max_scan",
  "long_conv",
  "attention",
  "attention, one head of keys",
  "attention, no heads to divide",
  "attention, slopes",
)
# mixers that divide their time by an op of theirs
MIXERS = (
  *("s4", "s4d", "dss", "gss", "s5", "lru", "liquid_s4", "h3", "hyena", "sgconv", "mega", "event_ssm", "lssl"),
  *("mamba", "mamba2", "mamba3", "rglru", "min_gru", "rnn", "lstm", "gru", "slstm"),
  *("softmax", "local", "performer", "linear_transformer", "retnet", "lightning", "mla", "gated_conv", "gla", "hgrn2"),
  *("based", "delta_net", "gated_delta_net", "kda", "rwkv4", "rwkv6", "rwkv7", "mlstm", "titans", "stack"),
)


def on_rows(over, run, axes):
  """Returns `run` with its time divided over rows of arrays, as `over` divides it over devices."""

  def cut(letters, z):
    if z is None or "t" not in letters.split():
      return z
    return jnp.stack(jnp.split(z, DEVICES, axis=letters.split().index("t")))

  def divided(*args):
    rows = [0 if z is not None and "t" in letters.split() else None for letters, z in zip(axes, args)]
    part = jax.vmap(lambda *some: over.part(run, DEVICES, *some), rows, axis_name=AXIS, axis_size=DEVICES)
    y, last = part(*map(cut, axes, args))
    # all devices have the last state
    return jnp.concatenate(list(y), axis=1), jax.tree.map(lambda z: z[-1], last)

  return divided


def reset_and_arrays(name):
  """Returns the arrays of an op, and document starts in the first device's part and at the last one's first token."""
  reset = np.zeros((2, T), bool)
  reset[0, 2] = reset[1, 2 * T // DEVICES] = True
  return reset, OPS[name].draw(T)


def test_devices_find_the_states_that_enter_their_parts_by_prefix():
  reset, z = reset_and_arrays("delta_rule, general")
  given = tuple(z[name] for name in ("q", "k", "v", "w", "u", "log_a", "S"))
  divided = on_rows(DELTA_RULE, delta_rule.delta_rule, DELTA_RULE.axes)
  want, got = (
    values_and_gradients(lambda *z, run=run: run(*z, reset), given) for run in (delta_rule.delta_rule, divided)
  )
  assert_close(got, want, 3e-5)


def test_rows_end_on_other_devices_than_the_last():
  reset, z = reset_and_arrays("short_conv")
  axes = "b t e", "w e", "b v e", "e", "b t", "b"
  over = Over(axes, "b t e", 2, sequence_parallel.Neighbour(), lengths=5)
  lengths = jnp.array([0, 7])
  kept = lambda run: lambda *z: run(*z, reset, lengths)[1]
  want, got = (
    values_and_gradients(lambda *z, run=run: (kept(run)(*z),), tuple(z.values()))
    for run in (short_conv.short_conv, on_rows(over, short_conv.short_conv, axes))
  )
  assert_close(got, want, 3e-5)


def test_recurrences_that_are_not_linear_run_in_turn():
  def run(h, x):
    h, y = jax.lax.scan(lambda h, x: (jnp.tanh(2 * h + x),) * 2, h, x.swapaxes(0, 1))
    return y.swapaxes(0, 1), h

  axes = "b e", "b t e"
  rng = np.random.default_rng(0)
  given = tuple(rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (2, T, 3)))
  divided = on_rows(Over(axes, "b t e", 0, InTurn()), run, axes)
  assert_close(values_and_gradients(divided, given), values_and_gradients(run, given), 3e-5)


def test_one_device_computes_as_without_a_mesh():
  """Masks, which every op takes, are looked at by the implementation alone."""
  z = OPS["ssd"].draw(T)
  over = jax.make_jaxpr(lambda *z: OPS["ssd"].run(*z, **masks(T)))(*z.values())
  assert "shard_map" not in str(over)
  assert sequence_parallel.count() == 1


def run_on_devices(*names, devices=4):
  """Runs the comparisons of `tests.kernels.sequence_on_a_mesh`, and returns what they print."""
  command = [sys.executable, "-m", "tests.kernels.sequence_on_a_mesh", *names]
  env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
  done = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr[-3000:]
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OPS, *OTHERS])
def test_ops_on_devices_that_share_the_time_equal_one_device(name):
  printed = run_on_devices(f"op:{name}")
  assert "gathers []" in printed or name in ("attention, no heads to divide", "attention, slopes"), printed


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_mixers_on_devices_that_share_the_time_equal_one_device(name):
  row = next(row for row in mixers.table("SMALL") if row.split(",")[0] == name)
  run_on_devices(f"mixer:{row}")
