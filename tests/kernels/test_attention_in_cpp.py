"""The C++ kernel of attention equals the definition; what every form owes is in test_attention.py."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import cpp
from kernels.attention import attention
from kernels.attention import cpp as kernel
from kernels.attention.visible import EVERYONE
from tests.kernels.compare import TOLERANCE, assert_close, draw, values_and_gradients

B = 2
SLOPES = (0.5, 0.0, 0.1, 0.02)
# queries, keys, heads, heads of keys, sizes of a key and of a value, documents or none, settings; a block has 64
# tokens, and four go together
CASES = [
  (1, 40, (4, 2), (5, 3), True, {}),
  (63, 63, (1, 1), (17, 16), False, {}),
  (130, 130, (2, 2), (64, 64), False, {}),
  (63, 100, (4, 2), (5, 3), True, {"window": 7}),
  (100, 100, (4, 1), (20, 40), True, {"softcap": 2.0, "scale": 0.7}),
  (70, 150, (4, 4), (3, 70), True, {"mask": "full", "window": 9}),
  (63, 100, (4, 2), (5, 3), True, {"slopes": SLOPES, "softcap": 2.0}),
  (41, 63, (4, 2), (5, 3), False, {"slopes": SLOPES, "mask": "full"}),
  (200, 200, (2, 1), (8, 8), True, {"window": 70}),
  (600, 600, (2, 1), (8, 8), True, {}),
]


@pytest.fixture(autouse=True, scope="module")
def library():
  """Builds the kernel; where that cannot be, its tests are skipped with the reason."""
  if reason := cpp.why_not(kernel.SOURCE):
    pytest.skip(reason)


def arrays(t, s, heads=(4, 2), sizes=(5, 3)):
  rng = np.random.default_rng(t)
  (h, g), (k, p) = heads, sizes
  return tuple(draw(rng, shape, "float32") for shape in ((B, t, h, k), (B, s, g, k), (B, s, g, p)))


def places(t, s):
  """The queries are the last tokens; two documents a row, empty slots, keys of everyone, a query without a place."""
  k_position = np.broadcast_to(np.arange(s), (B, s))
  k_segment = np.where(k_position < np.array([[s // 2], [s - 5]]), 0, 3)
  q_segment = np.array(k_segment[:, s - t :])
  q_segment[1, t // 2] = -1
  k_segment = np.where(k_position % 11 == 4, -1, k_segment)
  k_segment[1, s // 3] = EVERYONE
  return dict(q_position=k_position[:, s - t :], k_position=k_position, q_segment=q_segment, k_segment=k_segment)


def op(impl, **settings):
  return lambda q, k, v, **where: (attention(q, k, v, impl=impl, **settings, **where),)


@pytest.mark.parametrize("t, s, heads, sizes, documents, settings", CASES)
def test_it_equals_the_reference(t, s, heads, sizes, documents, settings, monkeypatch):
  """With as many cores as cut the queries into parts backward; what is in empty slots is NaN."""
  monkeypatch.setattr(os, "cpu_count", lambda: 3)
  (q, k, v), where = arrays(t, s, heads, sizes), places(t, s) if documents else {}
  if not documents and t < s:
    where = dict(
      q_position=np.broadcast_to(np.arange(s - t, s), (B, t)), k_position=np.broadcast_to(np.arange(s), (B, s))
    )
  want = values_and_gradients(op("reference", **settings), (q, k, v), **where)
  if documents:
    k, v = (np.where((where["k_segment"] >= 0)[..., None, None], z, np.float32(np.nan)) for z in (k, v))
    q = np.where((where["q_segment"] >= 0)[..., None, None], q, np.float32(np.nan))
  assert_close(values_and_gradients(op("cpp", **settings), (q, k, v), **where), want, TOLERANCE["float32"])


def test_what_is_not_finite_reaches_those_who_see_it_alone():
  q, k, v = (jnp.asarray(z) for z in arrays(100, 100))
  for number, (at, bad) in enumerate([(20, np.nan), (70, np.inf), (3, -np.inf)]):
    given = [q, k, v]
    given[number] = given[number].at[1, at, 0, 1].set(bad)
    (y,), gradients = values_and_gradients(op("cpp", window=50), given)
    spoilt = np.zeros((B, 100), bool)
    spoilt[1, slice(at, at + 1) if number == 0 else slice(at, at + 50)] = True
    np.testing.assert_array_equal(np.isnan(y).any(axis=(2, 3)), spoilt)
    assert all(np.isfinite(z).all() for z in gradients), number


def test_rows_that_see_nothing_are_zero_with_zero_gradients():
  where = dict(q_segment=np.ones((B, 6), int), k_segment=np.zeros((B, 9), int))
  y, gradients = values_and_gradients(op("cpp"), arrays(6, 9), **where)
  for z in (*y, *gradients):
    assert not np.asarray(z).any(), "something got through"


def test_vmap_runs_one_after_the_other():
  given = [jnp.asarray(z) for z in arrays(70, 70)]
  stacked = [jnp.stack([z, z / 2]) for z in given]
  run = functools.partial(attention, impl="cpp")
  gradient = lambda *z: jax.grad(lambda *z: run(*z).sum(), argnums=range(3))(*z)
  assert_close(jax.vmap(run)(*stacked)[1], run(*(z[1] for z in stacked)), 1e-6)
  assert_close([z[1] for z in jax.vmap(gradient)(*stacked)], list(gradient(*(z[1] for z in stacked))), 1e-6)


def test_the_result_does_not_depend_on_the_block_of_a_query():
  """A row of 70 tokens, and its last 6 tokens as queries of their own."""
  q, k, v = (jnp.asarray(z) for z in arrays(70, 70))
  index = jnp.broadcast_to(jnp.arange(70), (B, 70))
  alone = attention(q[:, 64:], k, v, impl="cpp", q_position=index[:, 64:], k_position=index)
  np.testing.assert_allclose(attention(q, k, v, impl="cpp")[:, 64:], alone, atol=1e-6)


@pytest.mark.parametrize(
  "settings, reason",
  [({"weights": "relu2"}, "it has no weights 'relu2'"), ({"decays": (-0.1,) * 5}, "it has no decays")],
)
def test_it_says_what_it_cannot_run_and_another_form_does(settings, reason):
  given = [jnp.asarray(z) for z in arrays(9, 9)]
  with pytest.raises(ValueError, match=f"cpp: {reason}"):
    attention(*given, impl="cpp", **settings)
  assert_close(attention(*given, **settings), attention(*given, impl="xla", **settings), 0)
  with pytest.raises(ValueError, match="cpp: it computes in float32, not in .'bfloat16'"):
    attention(*(z.astype(jnp.bfloat16) for z in given), impl="cpp")


def test_queries_are_cut_into_parts_for_the_cores(monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 4)
  parts = lambda b, t, g: kernel._parts(np.zeros((b, t, 1, 1)), np.zeros((b, 1, g, 1)))
  assert [parts(1, 1024, 1), parts(1, 100, 1), parts(2, 1024, 2), parts(1, 1024, 6), parts(0, 64, 1)] == [4, 1, 1, 2, 1]
