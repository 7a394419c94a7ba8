"""The C++ kernel of the LSTM equals its definition; tests/kernels/test_op.py has what every op over time owes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import cpp
from kernels.lstm import cpp as kernel
from kernels.lstm import lstm
from tests.kernels.compare import TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients


@pytest.fixture(autouse=True, scope="module")
def library():
  """Builds the kernel; where that cannot be, its tests are skipped with the reason."""
  if reason := cpp.why_not(kernel.SOURCE):
    pytest.skip(reason)


def arrays(b, t, d):
  rng = np.random.default_rng(t)
  shapes = ((b, t, 4 * d), (d, 4 * d), (b, d), (b, d))
  return [(draw(rng, shape, "float32") * size).astype("float32") for shape, size in zip(shapes, (1, d**-0.5, 1, 1))]


def run(impl):
  def call(*given, **where):
    y, state = lstm(*given, impl=impl, **where)
    return y, *state

  return call


# two rows and more than a tile; channels of one panel and several, ragged and whole
@pytest.mark.parametrize(
  "b, t, d, masked", [(2, 1, 5, False), (2, 40, 16, True), (2, 63, 37, True), (13, 20, 70, False)]
)
def test_it_equals_the_reference(b, t, d, masked, monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 2)
  given, where = arrays(b, t, d), masks(t) if masked else {}
  want = values_and_gradients(run("reference"), given, **where)
  if masked:
    given[0] = spoil(where["lengths"], given[0])
  assert_close(values_and_gradients(run("cpp"), given, **where), want, TOLERANCE["float32"])


def test_large_gates_are_exact():
  """Gates that are wide open or shut, as far as a float32 goes."""
  entered, R, h, c = arrays(2, 9, 5)
  for size in (30, 1e4, 1e30):
    given = [jnp.asarray(z) for z in (np.float32(size) * entered, 0 * R, h, c)]
    assert_close(lstm(*given, impl="cpp"), lstm(*given, impl="reference"), 1e-6)


def test_what_is_no_number_stays_in_its_document():
  given = arrays(2, 9, 5)
  given[0][1, 5, 2] = np.nan
  reset = jnp.zeros((2, 9), bool).at[1, 7].set(True)
  y, (h, c) = lstm(*map(jnp.asarray, given), reset=reset, impl="cpp")
  bad = np.isnan(y).any(axis=-1)
  assert bad[1, 5:7].all()
  assert bad.sum() == 2
  assert np.isfinite(h).all()
  assert np.isfinite(c).all()


def test_vmap_runs_one_after_the_other():
  given = [jnp.asarray(z) for z in arrays(2, 9, 5)]
  stacked = [jnp.stack([z, z / 2]) for z in given]
  gradient = lambda *z: jax.grad(lambda *z: run("cpp")(*z)[0].sum(), argnums=range(4))(*z)
  for call in (run("cpp"), gradient):
    assert_close(jax.tree.map(lambda z: z[1], jax.vmap(call)(*stacked)), call(*(z[1] for z in stacked)), 1e-6)


def test_rows_are_cut_into_parts_for_the_cores(monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 4)
  assert [kernel._parts(b) for b in (0, 1, 3, 16, 100)] == [1, 1, 3, 4, 4]


def test_it_is_for_float32():
  given = [jnp.asarray(z) for z in arrays(2, 9, 5)]
  with jax.enable_x64(True), pytest.raises(ValueError, match="cpp: it computes in float32, not in .'float64'"):
    lstm(*(z.astype("float64") for z in given), impl="cpp")
