"""RWKV's channel mixing: initial values of the three versions."""

import jax
import numpy as np
import pytest

from hybrids.channel.rwkv_channel import RWKVChannel
from tests.initial import variables

SMALL = {"": {}, "with receptance": dict(version=4, inner=12)}
ORACLE = {"": dict(layer=1, depth=3), "with receptance": (dict(version=6), dict(receptance=True))}
REFUSED = [(dict(version=5), "version=5; choose from [4, 6, 7]"), (dict(inner=0), "inner=0; it must be at least 1")]
TRAINED = {"undecayed": {"mu"}}


def count(d, version=7, inner=32):
  """In and out, a mixture; with receptance a map and a mixture more."""
  return 2 * d * inner + d + (version < 7) * (d * d + d)


def initial(**kwargs):
  return jax.tree.map(np.asarray, variables(RWKVChannel(**kwargs))["params"])


@pytest.mark.parametrize("version, power, inner", [(4, 2 / 3, 256), (6, 8 / 27, 224), (7, 16 / 81, 256)])
def test_initial_values(version, power, inner):
  p = initial(width=64, version=version, layer=1, depth=3)
  np.testing.assert_allclose(p["mu"], np.tile(1 - (np.arange(64) / 64) ** power, (1 + (version < 7), 1)), atol=1e-6)
  keys = p["k_proj"]["kernel"]
  assert keys.shape == (64, inner)
  if version == 7:
    np.testing.assert_allclose([keys.min(), keys.max()], [-1 / 16, 1 / 16], rtol=0.01)
  else:
    np.testing.assert_allclose(keys @ keys.T, {4: 4, 6: 1}[version] * np.eye(64), atol=1e-5)
  zero = ("v_proj",) if version == 7 else ("v_proj", "r_proj")
  assert p.keys() == {"mu", "k_proj", *zero}
  assert not any(p[name]["kernel"].any() for name in zero)
