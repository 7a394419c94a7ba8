"""The kernels in C++ for one token equal the definition in values and gradients, and write over the state they read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.selective_step import cpp as kernel  # noqa: F401, which `library` builds
from kernels.selective_step import selective_step
from kernels.ssd_step import ssd_step
from scripts.benchmarks.steps import selective_arrays, ssd_arrays
from tests.kernels.compare import TOLERANCE, assert_close, values_and_gradients
from tests.refused import refused


def op(*arrays, without="", impl="cpp", softplus=True):
  x, dt, A, B, C, D, z, h = map(jnp.asarray, arrays)
  D, z = None if "D" in without else D, None if "z" in without else z
  return selective_step(x, dt, A, B, C, D, z, h, softplus=softplus, impl=impl)


# channels and numbers that fill vectors or do not, several groups, several runs of channels and units of work
@pytest.mark.parametrize(
  "b, e, g, n, without, softplus",
  [(2, 40, 2, 5, "", True), (3, 64, 1, 16, "", False), (2, 17, 1, 33, "D", True), (20, 520, 1, 16, "z", True)],
)
def test_selective_step_equals_the_reference(library, b, e, g, n, without, softplus):
  given = selective_arrays(b, e, g, n)
  form = lambda impl: functools.partial(op, without=without, softplus=softplus, impl=impl)
  assert_close(values_and_gradients(form("cpp"), given), values_and_gradients(form("reference"), given), 3e-5)


def test_its_softplus_is_exact_to_the_last_digits(library):
  """With A = 0, h = 0 and x = B = C = 1 the output is the step size."""
  z = np.concatenate([np.linspace(-86, 30, 4001), np.linspace(-1e-3, 1e-3, 95)]).astype("float32")
  e, one = len(z), jnp.ones((1, 1, 1))
  empty = jnp.zeros((e, 1))
  given = jnp.ones((1, e)), z[None], empty, one, one, one[0, 0], z[None], empty[None]
  y, _ = op(*given, without="D z")
  off = np.abs(np.asarray(y)[0] / np.log1p(np.exp(z.astype("float64"))) - 1)
  # as in its exponential, an argument turned to base 2 is off by half a last digit of itself
  assert (off <= 2.0**-21 + np.maximum(-z, 0) * 2.0**-23).all(), off.max()


def test_what_is_no_number_stays_in_its_row_and_channel(library):
  for number in (0, 1, 6):
    given = [np.array(z) for z in selective_arrays(2, 40, 2, 5)]
    given[number][1, 23] = np.nan
    y, last = (np.asarray(z) for z in op(*given))
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 23]]
    assert np.isnan(last).sum() == (0 if number == 6 else 5)
    assert np.isnan(last[1, 23]).all() == (number != 6)


def test_vmap_runs_one_after_the_other(library):
  given = selective_arrays(2, 40, 2, 5)
  got = jax.vmap(op)(*(jnp.stack([z, 2 * z]) for z in given))
  assert_close([z[1] for z in got], list(op(*(2 * z for z in given))), TOLERANCE["float32"])


# heads of one group and of several, columns that fill vectors or do not, several units of work
@pytest.mark.parametrize(
  "b, h, p, g, k, norm, norm_groups, D_per",
  [
    (2, 4, 5, 2, 3, "gate_first", 2, "head"),
    (2, 8, 20, 1, 33, "norm_first", 1, "channel"),
    (10, 4, 64, 1, 64, "none", 1, "head"),
  ],
)
def test_ssd_step_equals_the_reference(library, b, h, p, g, k, norm, norm_groups, D_per):
  given, layer = ssd_arrays(b, h, p, g, k, norm, norm_groups, D_per=D_per)
  form = lambda impl: lambda *given: ssd_step(*given, **layer, impl=impl)
  values = [form(impl)(*given) for impl in ("cpp", "reference")]
  assert_close(*values, 3e-5)
  assert_close(values_and_gradients(form("cpp"), given), values_and_gradients(form("reference"), given), 3e-5)


def of_mamba():
  *given, h = selective_arrays(2, 40, 2, 5)
  return h, lambda h: op(*given, h)


def of_mamba2():
  (x, z, dt, taps, S), layer = ssd_arrays(2, 4, 5, 2, 3, "gate_first", 2)

  def step(S):
    y, _, S = ssd_step(x, z, dt, taps, S, **layer, impl="cpp")
    return y, S

  return S, step


@pytest.mark.optimized
@pytest.mark.parametrize("make", [of_mamba, of_mamba2])
def test_a_loop_does_not_copy_its_state(library, make):
  state, step = make()

  @functools.partial(jax.jit, donate_argnums=0)
  def run(state):
    y, after = step(state)
    return jax.lax.fori_loop(0, 5, lambda _, carry: step(carry[1]), (y, after))

  where, compiled = state.unsafe_buffer_pointer(), run.lower(state).compile().as_text()
  shape = f"f32[{','.join(map(str, state.shape))}]"
  assert shape in compiled
  assert not [line for line in compiled.splitlines() if "copy(" in line and f"= {shape}" in line]
  assert run(state)[1].unsafe_buffer_pointer() == where


def test_it_says_what_it_cannot_run():
  x, dt, A, B, C, D, z, h = selective_arrays(2, 6, 2, 3)
  refused("cpp: the states are complex", selective_step, x, dt, A + 0j, B, C, D, z, h + 0j, impl="cpp")
  refused("cpp: disc='zoh'", selective_step, x, dt, A, B, C, D, z, h, disc="zoh", impl="cpp")
