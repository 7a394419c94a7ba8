"""Luna's initial values, and what its packed vectors let through."""

import jax
import numpy as np
import pytest

from attention.efficient.luna import Luna
from tests.initial import initial

SMALL = {"": dict(heads=2, packed=3), "tied": dict(heads=2, packed=3, tied=True, bias=False)}
ORACLE = {
  "": dict(heads=2, packed=3),
  "tied": dict(heads=4, packed=2, tied=True, bias=False),
}
REFUSED = []


def count(d, packed, tied=False, bias=True, **_):
  """P; four maps of tokens and of P, two of what is packed, out; keys that are values save one of each kind."""
  return packed * d + (7 - 2 * tied) * d * (d + bias)


X = jax.random.normal(jax.random.key(1), (2, 12, 8))


def test_initial_values():
  p = initial(Luna(width=64, packed=100))
  np.testing.assert_allclose(p["P"].std(), 1 / 8, rtol=0.05)
  small, plain = (6 / 128 / 2) ** 0.5, (6 / 128) ** 0.5
  for kernel, bound in (
    *((p[name]["kernel"], small) for name in ("q_proj", "pq_proj", "pk_proj", "pv_proj")),
    *((p[name], small) for name in ("k_kernel", "v_kernel")),
    (p["out_proj"]["kernel"], plain),
  ):
    np.testing.assert_allclose(np.abs(kernel).max(), bound, rtol=0.02)
  np.testing.assert_array_equal(p["k_bias"], np.zeros(64))


def test_one_packed_vector_tells_all_tokens_the_same():
  """A mean of values; two tell each token what it asks for."""
  for packed in (1, 2):
    module = Luna(width=8, heads=2, packed=packed)
    y = np.asarray(jax.jit(module.apply)({"params": initial(module)}, X))
    assert (np.ptp(y, axis=1).max() < 1e-5) == (packed == 1)


@pytest.mark.parametrize(
  "kwargs, reason",
  [(dict(heads=3), "heads=3 does not divide width=8"), (dict(packed=0), "packed=0; it must be at least 1")],
)
def test_what_does_not_fit_is_named_when_the_model_is_built(kwargs, reason):
  with pytest.raises(ValueError, match=reason):
    Luna(width=8, **kwargs)
