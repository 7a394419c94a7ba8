"""The C++ kernel of heads with a matrix for a state equals the definitions of the three ops that it computes."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.delta_rule import delta_rule
from kernels.gated_linear_attention import gated_linear_attention
from kernels.matrix_state import cpp as kernel
from kernels.ssd import ssd
from tests.kernels.compare import TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients

# rows and columns of a state, of which vectors hold 16: panels of one, two and twice four of them
SIZES = [(3, 5), (17, 20), (33, 70), (70, 3)]
# what stands beside q, k, v and the state
FORMS = {
  "ssd, one head a group": (ssd, 1),
  "ssd, three heads a group": (ssd, 3),
  "gated_linear_attention": (gated_linear_attention, 1),
  "gated_linear_attention with a bonus": (gated_linear_attention, 1),
  "delta_rule": (delta_rule, 1),
  "delta_rule, one decay": (delta_rule, 1),
  "delta_rule, decays by row, u": (delta_rule, 1),
}


def arrays(form, t, rows, columns):
  """Returns the op's arrays: those by token, the state, the bonus."""
  rng = np.random.default_rng(t)
  heads = FORMS[form][1]
  normal = lambda *shape: (draw(rng, shape, "float32") / 2).astype("float32")
  decays = lambda *shape: -rng.uniform(0.01, 2, shape).astype("float32")
  unit = lambda z: z / (1e-3 + np.linalg.norm(z, axis=-1, keepdims=True))
  q, k = normal(2, t, 2, rows), unit(normal(2, t, 2, rows))
  v, S = normal(2, t, 2 * heads, columns), normal(2, 2 * heads, rows, columns)
  if form.startswith("ssd"):
    return q, k, v, decays(2, t, 2 * heads), S
  if form.startswith("gated"):
    bonus = (normal(2, rows),) if "bonus" in form else ()
    return q, k, v, decays(2, t, 2, rows), S, *bonus
  w = unit(normal(2, t, 2, rows))
  more = {"one": (None, decays(2, t, 2, 1)), "by row": (unit(normal(2, t, 2, rows)), decays(2, t, 2, rows))}
  return q, k, v, w, S, *next((z for name, z in more.items() if name in form), ())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("t, size, masked", [(1, 0, False), (64, 1, True), (45, 2, True), (131, 3, False)])
def test_it_equals_the_reference(library, form, t, size, masked, monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 8)
  op, _ = FORMS[form]
  given, where = arrays(form, t, *SIZES[size]), masks(t) if masked else {}
  there = [i for i, z in enumerate(given) if z is not None]

  def call(*known, impl, **where):
    every = dict(zip(there, known))
    return op(*(every.get(i) for i in range(len(given))), impl=impl, **where)

  known = [given[i] for i in there]
  want = values_and_gradients(functools.partial(call, impl="reference"), known, **where)
  if masked:
    known = [spoil(where["lengths"], z) if z.shape[:2] == (2, t) else z for z in known]
  assert_close(values_and_gradients(functools.partial(call, impl="cpp"), known, **where), want, TOLERANCE["float32"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size, reset", [(0, None), (2, [[True], [False]]), (3, None)])
def test_one_token_equals_the_reference(library, form, size, reset):
  """Where no gradient is asked for, which has the kernel keep the state before the token."""
  op, _ = FORMS[form]
  given = [None if z is None else jnp.asarray(z) for z in arrays(form, 1, *SIZES[size])]
  where = {} if reset is None else {"reset": jnp.array(reset)}
  assert_close(op(*given, impl="cpp", **where), op(*given, impl="reference", **where), TOLERANCE["float32"])


def test_heads_are_cut_into_parts_for_the_cores(monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 8)
  parts = lambda b, g, h: kernel._parts(np.zeros((b, 1, g, 1)), np.zeros((b, 1, h, 1)))
  assert [parts(1, 1, 16), parts(3, 1, 16), parts(2, 2, 16), parts(8, 1, 16)] == [8, 3, 2, 1]
  assert [parts(1, 1, 3), parts(1, 8, 8), parts(0, 1, 16)] == [3, 1, 8]


def test_it_has_chunks_as_long_as_the_source_says():
  assert f"CHUNK = {kernel.CHUNK};" in kernel.SOURCE.read_text()


def test_what_is_no_number_stays_in_its_document(library):
  given = [np.array(z) for z in arrays("ssd, one head a group", 9, 3, 5)]
  given[2][1, 5, 1, 2] = np.nan
  reset = jnp.zeros((2, 9), bool).at[1, 7].set(True)
  y, last = (np.asarray(z) for z in ssd(*map(jnp.asarray, given), reset=reset, impl="cpp"))
  assert np.isnan(y[1, 5:7]).all()
  assert np.isnan(y).sum() == y[1, 5:7].size
  assert np.isfinite(last).all()


def test_vmap_runs_one_after_the_other(library):
  given = [jnp.asarray(z) for z in arrays("delta_rule", 9, 3, 5) if z is not None]
  stacked = [jnp.stack([z, z / 2]) for z in given]
  op = functools.partial(delta_rule, impl="cpp")
  gradient = lambda *z: jax.grad(lambda *z: op(*z)[0].sum(), argnums=range(5))(*z)
  for run in (op, gradient):
    assert_close([z[1] for z in jax.vmap(run)(*stacked)], list(run(*(z[1] for z in stacked))), 1e-6)
