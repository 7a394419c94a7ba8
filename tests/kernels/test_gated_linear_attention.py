import jax
import numpy as np
import pytest

from kernels.gated_linear_attention import gated_linear_attention
from kernels.ssd import ssd
from tests.kernels.compare import QUICK, assert_close
from tests.kernels.ops import OPS

H, K = 4, 3
op = jax.jit(gated_linear_attention, static_argnames="impl", compiler_options=QUICK)


def arrays(t, bonus=False):
  return tuple(OPS["gated_linear_attention, bonus" if bonus else "gated_linear_attention"].draw(t).values())


@pytest.mark.parametrize("bonus", [False, True])
def test_the_definition_is_the_recurrence(bonus):
  q, k, v, log_a, S, *rest = arrays(9, bonus)
  y, last = op(q, k, v, log_a, S, *rest, impl="reference")
  for h in range(H):
    state = S[:, h]
    for t in range(9):
      new = k[:, t, h, :, None] * v[:, t, h, None]
      after = np.exp(log_a[:, t, h, :, None]) * state + new
      read = state + rest[0][h, :, None] * new if bonus else after
      np.testing.assert_allclose(y[:, t, h], np.einsum("bk,bkp->bp", q[:, t, h], read), atol=1e-5)
      state = after
    np.testing.assert_allclose(last[:, h], state, atol=1e-5)


def test_equals_ssd_where_a_head_has_one_decay():
  q, k, v, log_a, S = arrays(40)
  one = log_a[..., 0]
  got = op(q, k, v, np.repeat(one[..., None], K, -1), S)
  assert_close(got, jax.jit(ssd)(q, k, v, one, S), 1e-5)
