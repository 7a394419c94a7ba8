import functools

import jax
import numpy as np
import pytest

from kernels.selective_scan import selective_scan
from kernels.ssd import IMPLS, ssd
from tests.kernels.compare import QUICK, TOLERANCE, anywhere, assert_close, masks, values_and_gradients
from tests.kernels.dual_of_ssd import quadratic
from tests.kernels.ops import OPS

ROWS, H, K, P = 2, 4, 3, 5
FAST = [name for name in anywhere(IMPLS) if name != "reference"]
op = jax.jit(ssd, static_argnames="impl", compiler_options=QUICK)


def arrays(t, groups=1, dtype="float32"):
  return tuple(OPS["ssd"].draw(t, dtype, g=groups).values())


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_attention_with_decay_is_the_recurrence(masked, monkeypatch):
  """The duality: quadratic and recurrent form are the same function, as the chunked one is (test_op.py)."""
  with jax.enable_x64(True):
    given, where = arrays(100, 2, "float64"), masks(100) if masked else {}
    # a function each, as JAX keeps what it has traced
    run = lambda: values_and_gradients(functools.partial(ssd, impl="reference"), given, **where)
    want = run()
    monkeypatch.setitem(IMPLS, "reference", (quadratic, IMPLS["reference"][1]))
    assert_close(run(), want, TOLERANCE["float64"])


def test_the_definition_is_the_recurrence():
  q, k, v, log_a, S = arrays(9, 2)
  y, last = op(q, k, v, log_a, S, impl="reference")
  for h in range(H):
    state, g = S[:, h], h // 2
    for t in range(9):
      state = np.exp(log_a[:, t, h, None, None]) * state + k[:, t, g, :, None] * v[:, t, h, None]
      np.testing.assert_allclose(y[:, t, h], np.einsum("bk,bkp->bp", q[:, t, g], state), atol=1e-5)
    np.testing.assert_allclose(last[:, h], state, atol=1e-5)


def test_equals_a_selective_scan_whose_channels_share_their_decay():
  """Mamba's scan with A the same for all channels and states of a head."""
  C, B, x, log_a, S = arrays(20, 2)
  wide = lambda z: z.reshape(*z.shape[:2], -1)
  dt = np.repeat(-log_a, P, axis=2)
  h = S.swapaxes(2, 3).reshape(ROWS, -1, K)
  y, last = jax.jit(selective_scan)(wide(x) / dt, dt, -np.ones((H * P, K), "float32"), B, C, h)
  got, got_last = op(C, B, x, log_a, S)
  np.testing.assert_allclose(wide(got), y, atol=1e-4)
  np.testing.assert_allclose(got_last.swapaxes(2, 3).reshape(last.shape), last, atol=1e-4)


@pytest.mark.parametrize("impl", FAST)
def test_a_decay_of_0_clears_the_state_as_a_document_start_does(impl):
  q, k, v, log_a, S = OPS["ssd"].forgetting(g=1).values()
  cleared, _ = op(q, k, v, np.where(np.isinf(log_a), 0, log_a), S, reset=np.isinf(log_a[..., 0]), impl=impl)
  np.testing.assert_allclose(op(q, k, v, log_a, S, impl=impl)[0], cleared, atol=1e-6)


def test_groups_must_divide_the_heads():
  with pytest.raises(ValueError, match="4 heads in 3 groups"):
    op(*arrays(8, groups=3))
