"""The experts of a mixture: every implementation computes the reference, whatever share of the tokens an expert has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.experts import IMPLS, chunks, experts
from tests.kernels.compare import DTYPES, QUICK, TOLERANCE, assert_close

B, T, K, E, D, F = 2, 21, 2, 5, 3, 4
# All experts; one that nobody chooses; everyone the same; some, or all, choices are none.
CHOICES = {
  "even": lambda rng: rng.permuted(np.tile(np.arange(E), (B, T, 1)), axis=-1)[..., :K],
  "one unused": lambda rng: rng.integers(0, E - 1, (B, T, K)),
  "all the last": lambda rng: np.full((B, T, K), E - 1),
  "half none": lambda rng: np.where(rng.random((B, T, K)) < 0.5, E, rng.integers(0, E, (B, T, K))),
  "none": lambda rng: np.full((B, T, K), E),
}


def arrays(dtype, t=T, gated=True):
  rng = np.random.default_rng(0)
  shapes = ((B, t, D), (B, t, K), (E, D, F), (E, F, D), *[(E, D, F)] * gated)
  return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def op(chosen, impl, x, weights, *matrices):
  return experts(x, chosen, weights, *matrices, activation=jax.nn.silu, impl=impl)


def compiled(impl):
  """A program of the outputs and of all gradients, for any choices."""

  @functools.partial(jax.jit, compiler_options=QUICK)
  def run(chosen, given):
    y, pull = jax.vjp(functools.partial(op, chosen, impl), *given)
    return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  return run


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("impl", [name for name in IMPLS if name != "reference"])
def test_implementations_equal_the_reference(impl, gated, dtype):
  with jax.enable_x64(dtype == "float64"):
    given = arrays(dtype, gated=gated)
    run, reference = compiled(impl), compiled("reference")
    for choices in CHOICES.values():
      chosen = choices(np.random.default_rng(1))
      assert_close(run(chosen, given), reference(chosen, given), TOLERANCE[dtype])


def test_a_few_single_tokens_read_their_experts_alone():
  """Values and gradients as by the other forms; the program has no product with all experts."""
  given, run, reference = arrays("float32", t=1), compiled("auto"), compiled("reference")
  for name in ("even", "half none"):
    chosen = CHOICES[name](np.random.default_rng(1))[:, :1]
    assert_close(run(chosen, given), reference(chosen, given), 1e-5)
  text = jax.jit(lambda *z: op(jnp.asarray(chosen), "auto", *z)).lower(*given).as_text()
  assert f"tensor<{B}x1x{K}x{D}x{F}xf32>" in text
  assert "while" not in text


def test_the_work_is_that_of_the_chosen_experts():
  """Rows in chunks, of which each group has at most one that is not full."""
  for rows, groups in ((4096, 8), (96, 16)):
    sizes = np.random.default_rng(0).multinomial(rows, np.ones(groups) / groups)
    size = chunks._size(rows, groups)
    made = jax.jit(chunks._chunks, static_argnums=(1, 2))(sizes, rows, size)
    assert int(made.number) * size <= rows + groups * (size - 1)
    assert int(made.number) * size <= max(1.7 * rows, rows + 8 * groups)
    used = np.arange(len(made.rows)) < int(made.number)
    np.testing.assert_array_equal(np.bincount(made.matrix[used], made.rows[used], groups), sizes)


def test_bfloat16_has_sums_in_float32():
  given = arrays("bfloat16")
  chosen = CHOICES["even"](np.random.default_rng(1))
  want = compiled("reference")(chosen, tuple(np.asarray(z, np.float32) for z in given))[0]
  for impl in ("ragged", "chunks"):
    y = compiled(impl)(chosen, given)[0]
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), want, atol=0.03 * np.abs(want).max())
