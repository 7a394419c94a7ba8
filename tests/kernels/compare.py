"""How the tests of an op compare its implementations: values and every gradient, relative to the largest entry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.kernels import interpreters
from tests.quick import UNOPTIMIZED

QUICK = UNOPTIMIZED  # also in the slow suite, where these programs run once
DTYPES = ["float32", "float64"]  # conftest.py leaves the second to the slow suite
TOLERANCE = {"float32": 3e-5, "float64": 1e-12}
DIGIT = 2.0**-7  # the last of bfloat16


def interpreted_gpu(test):
  """A test in JAX's interpreter of a GPU, which only newer ones have: CI runs it on the newer Python."""
  reason = interpreters.why_no_interpreted_gpu()
  return pytest.mark.smoke(pytest.mark.skipif(reason is not None, reason=str(reason))(test))


def anywhere(impls):
  """Names of the implementations that run everywhere; kernels for one kind of device have tests of their own."""
  return [name for name in impls if not name.startswith(("cpp", "pallas"))]


def draw(rng, shape, dtype):
  """Normal numbers as a numpy array; complex ones of unit variance in each part."""
  z = rng.standard_normal(shape)
  if jnp.issubdtype(dtype, jnp.complexfloating):
    z = z + 1j * rng.standard_normal(shape)
  return z.astype(dtype)


def masks(t):
  """Of two rows of t tokens: document starts on the first and last token and on neighbours; rows that end early."""
  reset = np.zeros((2, t), bool)
  reset[0, 0] = reset[0, t - 1] = reset[1, t // 2 : t // 2 + 2] = True
  return {"reset": reset, "lengths": np.array([t - 1, t // 2 + 1])}


def spoil(lengths, z):
  """NaN past the lengths of an array with a time axis."""
  past = np.arange(z.shape[1]) >= np.asarray(lengths)[:, None]
  return np.where(past.reshape(*past.shape, *[1] * (z.ndim - 2)), np.asarray(np.nan, z.dtype), z)


def differentiated(op):
  """Compiles `(arrays, cotangents, masks) -> outputs of op(*arrays, **masks), gradients in the arrays`."""

  @functools.partial(jax.jit, compiler_options=QUICK)
  def run(arrays, cotangents, masks):
    out, pull = jax.vjp(lambda *z: op(*z, **masks), *arrays)
    return out, pull(cotangents)

  return run


def cotangents(shapes, masks):
  """Random numbers for outputs of these shapes.

  Past the lengths that of the first output is NaN, as that of a product with a spoilt gate would be.
  """
  rng = np.random.default_rng(0)
  first, *rest = (draw(rng, z.shape, z.dtype) for z in shapes)
  return (spoil(masks["lengths"], first) if "lengths" in masks else first, *rest)


def values_and_gradients(op, arrays, **masks):
  """The outputs of `op(*arrays, **masks)` and the gradient of their product with random numbers in every array."""
  shapes = jax.eval_shape(lambda arrays, masks: op(*arrays, **masks), arrays, masks)
  return jax.block_until_ready(differentiated(op)(arrays, cotangents(shapes, masks), masks))


def assert_close(got, want, tolerance, narrow=None):
  """Leaf by leaf: the same shape and dtype, and everywhere within `tolerance` of the largest entry.

  `narrow` is the tolerance of bfloat16, if another: a number may be rounded the other way.
  """
  got, want = jax.tree.leaves_with_path(got), jax.tree.leaves_with_path(want)
  assert len(got) == len(want), f"{len(got)} arrays for {len(want)}"
  for (path, g), (_, w) in zip(got, want):
    name = jax.tree_util.keystr(path)
    assert (g.shape, g.dtype) == (w.shape, w.dtype), f"{name}: {g.shape} {g.dtype} for {w.shape} {w.dtype}"
    g, w = np.asarray(g), np.asarray(w)
    error, size = np.abs(g - w).max(initial=0), np.abs(w).max(initial=0)
    most = narrow if narrow is not None and w.dtype == jnp.bfloat16 else tolerance
    assert error <= most * max(size, 1e-3), f"{name}: off by {error} where the largest entry is {size}"


def assert_equals_the_reference(op, given, t, masked, tolerance=TOLERANCE["float32"]):
  """Values and gradients of a kernel for TPUs; with masks, what stands past the lengths is NaN."""
  where = masks(t) if masked else {}
  want = values_and_gradients(functools.partial(op, impl="reference"), given, **where)
  if masked:
    given = jax.tree.map(lambda z: spoil(where["lengths"], z) if z.shape[:2] == (2, t) else z, given)
  got = values_and_gradients(functools.partial(op, impl="pallas_tpu"), given, **where)
  assert_close(got, want, tolerance, narrow=DIGIT)
