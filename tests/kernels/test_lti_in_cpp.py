"""`lti` in C++: values and gradients against the definition, and the rounding of A that it makes good."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch
from kernels.lti import FAR, System, by_token, lti
from kernels.lti import cpp as kernel  # noqa: F401, which `library` builds
from ssm.lti import diagonal
from tests.kernels.compare import TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients

pytestmark = pytest.mark.usefixtures("library")


def arrays(t, e, n, dtype="complex64"):
  """u, the state before, and A, B, C, D."""
  rng = np.random.default_rng(t)
  A, B, C = (draw(rng, (e, n), np.dtype(dtype)) for _ in range(3))
  return (
    *(draw(rng, (2, t, e), np.dtype("float32")), draw(rng, (2, e, n), np.dtype(dtype))),
    *(0.95 * A / np.abs(A), B, C, draw(rng, (e,), np.dtype("float32"))),
  )


def one_token(A, B, C, D, far=None):
  return System((C * B).real.sum(-1)[:, None] + D[:, None], A, (C * A)[:, None], B[..., None], A, far)


def op(impl, far=None):
  """With the power that corrects the state once in `far` tokens."""
  power = (lambda A: None) if far is None else (lambda A: jax.lax.integer_pow(A, far))
  return lambda u, x, A, B, C, D, **where: lti(u, one_token(A, B, C, D, power(A)), x, impl=impl, **where)


# one vector of channels, a part of one, several; states even and odd in number; fewer tokens than a chunk, and more
SIZES = [(2, 3, 4, False), (64, 16, 1, True), (131, 19, 5, True), (200, 40, 2, False)]


@pytest.mark.parametrize("t, e, n, masked", SIZES)
@pytest.mark.parametrize("dtype", ["complex64", "float32"])
def test_it_equals_the_definition(t, e, n, masked, dtype):
  given, where = arrays(t, e, n, dtype), masks(t) if masked else {}
  want = values_and_gradients(op("reference"), given, **where)
  if masked:
    given = (spoil(where["lengths"], given[0]), *given[1:])
  assert_close(values_and_gradients(op("cpp", FAR), given, **where), want, TOLERANCE["float32"])


def test_documents_may_start_anywhere():
  """At the first token, at both sides of a chunk's end, and one after the other."""
  t, given = 130, arrays(130, 17, 3)
  reset = np.zeros((2, t), bool)
  reset[0, [0, 63, 64, 65]], reset[1, [1, 127, 128]] = True, True
  where = {"reset": reset, "lengths": np.array([t, 64])}
  want = values_and_gradients(op("reference"), given, **where)
  assert_close(values_and_gradients(op("cpp", FAR), given, **where), want, TOLERANCE["float32"])


def test_the_correction_makes_good_that_A_is_rounded():
  """The taps of states that hardly fade, up to 4,096 turns away, against those in double precision."""
  t, e, n = 16384, 2, 8
  rng = np.random.default_rng(0)
  dt, real = np.float32(0.1), np.float32(-1e-4)
  imag = (2 * np.pi * (np.arange(n) + rng.random((e, n)))).astype("float32")
  C = draw(rng, (e, n), np.dtype("complex64"))
  exact = np.float64(dt) * (np.float64(real) + 1j * imag.astype(np.float64))
  want = np.stack([(C * np.exp(exact * i)).sum(-1).real for i in range(t)])
  turns = diagonal.turns(jnp.full((e, n), dt), jnp.asarray(imag))
  log_A = jnp.asarray(dt * (real + 1j * imag), jnp.complex64)
  recurrence = diagonal.Recurrence(log_A, jnp.ones((e, n), jnp.complex64), C, jnp.zeros(e), turns)
  u = jnp.zeros((1, t, e)).at[:, 0].set(1)
  off = lambda y: np.abs(y[0] - want).max() / np.abs(want).max()
  assert by_token(u, log_A)
  corrected = off(jax.jit(diagonal.outputs)(u, recurrence))
  assert corrected < 5e-5
  alone = diagonal.system(recurrence, 1)
  y, _ = jax.jit(lambda u, x: lti(u, alone, x, impl="cpp"))(u, jnp.zeros((1, e, n), jnp.complex64))
  assert off(y) > 10 * corrected, "the correction does nothing that matters here"


def test_the_long_convolution_has_the_same_outputs():
  rng = np.random.default_rng(1)
  e, n = 5, 6
  log_A = jnp.asarray(-np.exp(rng.normal(size=(e, n))) * 0.1 + 1j * rng.normal(size=(e, n)), jnp.complex64)
  B, C = (draw(rng, (e, n), np.dtype("complex64")) for _ in range(2))
  given = (draw(rng, (2, 150, e), np.dtype("float32")), log_A, B, C, draw(rng, (e,), np.dtype("float32")))

  def form(u, log_A, B, C, D, **where):
    return diagonal.outputs(u, diagonal.Recurrence(log_A, B, C, D), **where), jnp.zeros(())

  where = {"lengths": np.array([150, 77])}
  with dispatch.use("fft"):
    assert not by_token(jnp.asarray(given[0]), log_A)
    want = values_and_gradients(form, given, **where)
  assert_close(values_and_gradients(form, given, **where), want, 1e-4)


def test_what_it_cannot_run():
  u, x, A, B, C, D = map(jnp.asarray, arrays(20, 3, 4))
  dense = one_token(A, B, C, D)._replace(A=jnp.ones((3, 4, 4)))
  with pytest.raises(ValueError, match="cpp: its A is dense"):
    lti(u, dense, x, impl="cpp")
  with dispatch.use("xla"):
    assert not by_token(u, A), "kernels are not taken where XLA's forms are asked for"
  assert not by_token(u.astype("bfloat16"), A)
