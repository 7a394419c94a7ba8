import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kernels.lti import System, lti, plan
from tests.kernels.compare import QUICK, TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients

B, E, N = 2, 3, 4
FAST = ["lags"]  # with and without documents
KINDS = {
  "diagonal real": (np.float32, False),
  "diagonal complex": (np.complex64, False),
  "dense real": (np.float32, True),
  "dense complex": (np.complex64, True),
}
# tokens, chunk, kind, masked: fewer tokens than a chunk, whole chunks, a ragged end
CASES = [
  (1, 16, "diagonal complex", True),
  (64, 16, "diagonal complex", False),
  (63, 16, "diagonal complex", True),
  (100, 32, "diagonal real", True),
  (100, 20, "dense real", False),
  (63, 64, "dense complex", True),
]


def arrays(t, kind, dtype="float32"):
  """u, the state before, and A, B, C of one step."""
  rng = np.random.default_rng(t)
  base, dense = KINDS[kind]
  dtype, inner = np.dtype(dtype), np.result_type(base, dtype)
  A = draw(rng, (E, N, N) if dense else (E, N), inner)
  A = 0.9 * A / (np.linalg.norm(A, ord=2, axis=(1, 2), keepdims=True) if dense else np.abs(A))
  return tuple(
    z.astype(kind)
    for z, kind in (
      (draw(rng, (B, t, E), dtype), dtype),
      (draw(rng, (B, E, N), inner), inner),
      (A, inner),
      (draw(rng, (E, N), inner), inner),
      (draw(rng, (E, N), inner), inner),
    )
  )


def make(A, B, C, c):
  """The System for chunks of c tokens, by multiplying."""
  dense = A.ndim == 3
  right = (lambda x: jnp.einsum("eij,ej->ei", A, x)) if dense else (lambda x: A * x)
  left = (lambda y: jnp.einsum("ei,eij->ej", y, A)) if dense else (lambda y: y * A)
  power = (lambda P: P @ A) if dense else (lambda P: P * A)

  def step(carry, _):
    x, y, P = carry
    return (right(x), left(y), power(P)), (x, left(y))

  one = jnp.broadcast_to(jnp.eye(A.shape[-1], dtype=A.dtype), A.shape) if dense else jnp.ones_like(A)
  (_, _, P), (inputs, outputs) = jax.lax.scan(step, (B, C, one), length=c)
  K = jnp.sum(C * inputs, axis=-1).real.T
  return System(K=K, A=A, O=outputs.swapaxes(0, 1), I=jnp.moveaxis(inputs[::-1], 0, 2), P=P)


def plain(impl, c):
  return lambda u, x, A, B, C, **masks: lti(u, make(A, B, C, c), x, impl=impl, **masks)


@functools.cache
def op(impl, c):
  return jax.jit(plain(impl, c), compiler_options=QUICK)


@pytest.mark.parametrize("t, c, kind, masked, dtype", [*((*case, "float64") for case in CASES), (*CASES[2], "float32")])
@pytest.mark.parametrize("impl", FAST)
def test_implementations_equal_the_reference(impl, t, c, kind, masked, dtype):
  with jax.enable_x64(dtype == "float64"):
    given, where = arrays(t, kind, dtype), masks(t) if masked else {}
    want = values_and_gradients(plain("reference", 1), given, **where)
    if masked:
      given = (spoil(where["lengths"], given[0]), *given[1:])
    assert_close(values_and_gradients(plain(impl, c), given, **where), want, TOLERANCE[dtype])


@pytest.mark.parametrize("t, c", [(1, 1), (7, 16), (63, 16)])
def test_products_within_chunks_equal_the_reference(t, c):
  given, where = arrays(t, "diagonal complex"), {"lengths": np.array([t, t // 2])}
  want = values_and_gradients(plain("reference", 1), given, **where)
  assert_close(values_and_gradients(plain("products", c), given, **where), want, TOLERANCE["float32"])


def test_products_mask_no_documents():
  with pytest.raises(ValueError, match="products: it masks no documents"):
    values_and_gradients(plain("products", 8), arrays(20, "diagonal complex"), reset=np.ones((B, 20), bool))


@pytest.mark.parametrize("masked", [False, True])
def test_every_field_has_its_own_gradient(masked):
  """Against finite differences, as if the fields had nothing to do with each other."""
  with jax.enable_x64(True):
    u, x, A, B, C = arrays(11, "diagonal complex", "float64")
    where = masks(11) if masked else {"lengths": np.array([11, 9])}
    system = jax.jit(make, static_argnums=3)(A, B, C, 4)
    where = {name: jnp.asarray(mask) for name, mask in where.items()}
    run = jax.jit(lambda u, x, system: lti(u, system, x, impl="lags", **where))
    check_grads(run, (u, x, system), order=1, modes=["rev"], rtol=1e-6)


def test_the_definition_is_the_recurrence():
  u, x, A, B_, C = arrays(9, "dense complex")
  y, last = op("reference", 1)(u, x, A, B_, C)
  for t in range(9):
    x = np.einsum("eij,bej->bei", A, x) + B_ * u[:, t, :, None]
    np.testing.assert_allclose(y[:, t], np.einsum("en,ben->be", C, x).real, atol=1e-5)
  np.testing.assert_allclose(last, x, atol=1e-5)


@pytest.mark.parametrize("impl", [*FAST, "reference"])
def test_a_row_without_tokens_keeps_its_state(impl):
  u, x, *system = arrays(20, "diagonal complex")
  y, last = op(impl, 8)(u, x, *system, reset=np.ones((B, 20), bool), lengths=np.array([0, 8]))
  np.testing.assert_array_equal(last[0], x[0])
  assert not y[0].any(), "outputs of a row without tokens"


def test_the_future_does_not_leak():
  u, x, *system = arrays(20, "diagonal complex")
  jacobian = jax.jit(jax.jacobian(lambda u: jax.jit(plain("lags", 8))(u, x, *system)[0].sum((0, 2))))(u)
  size = np.abs(jacobian).max(axis=(1, 3))  # output time, input time
  assert not np.triu(size, 1).any(), "an output that sees its future"
  assert size[np.tril_indices(20)].all(), "an output that does not see its whole past"


@pytest.mark.optimized
def test_neither_all_states_nor_all_taps_are_written_down():
  t, e, n, c = 1024, 8, 16, 64
  shapes = ((1, t, e), (1, e, n), (e, n), (e, n), (e, n))
  given = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]

  def loss(u, x, A, B, C):
    y, last = lti(u, make(A, B, C, c), x, impl="lags")
    return y.sum() + last.sum()

  stats = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4))).lower(*given).compile().memory_analysis()
  states = t * e * n * 4
  assert stats.temp_size_in_bytes < states, f"{stats.temp_size_in_bytes} bytes; all states take {states}"


def test_plan_spreads_the_tokens():
  assert plan(1, packed=True) == (1, 1)
  assert plan(64, packed=True) == (64, 64)
  assert plan(100, packed=True) == (50, 50)
  assert plan(100, packed=False) == (100, 50)


def test_too_few_taps_are_refused():
  u, x, A, B, C = (jnp.asarray(z) for z in arrays(20, "diagonal real"))
  system = make(A, B, C, 8)
  with pytest.raises(ValueError, match="7 taps for 20 tokens in chunks of 8; it needs 8"):
    lti(u, system._replace(K=system.K[:, :7]), x)
