"""Agreement with lucidrains' neural memory, at the settings at which it is the paper's."""

import jax
import jax.numpy as jnp
import pytest

from kernels.neural_memory import Memory, neural_memory
from tests.golden.compare import check, read


@pytest.mark.parametrize("part, chunk", [("linear/", 5), ("deep/", 4)])
def test_neural_memory_is_theirs(part, chunk):
  given, *recorded = read("titans", part)
  layers = sum("memory_model_parameters" in name for name in given)

  def run(p):
    x = p["x"]
    through = lambda name: x @ p[f"to_{name}.weight"].T
    gate = lambda name: through(f"{name}.0") + p[f"to_{name}.0.bias"]
    q, k, v = (through(name)[:, :, None] for name in ("queries", "keys", "values"))
    rate = 0.1 * jax.nn.sigmoid(gate("adaptive_step"))
    log_eta, log_keep = jax.nn.log_sigmoid(gate("momentum")), jax.nn.log_sigmoid(-gate("decay_factor"))
    initial = tuple(p[f"memory_model_parameters.{i}"] for i in range(layers))
    nothing = tuple(jnp.zeros((x.shape[0], *W.shape)) for W in initial)
    empty = Memory(nothing, nothing, nothing, jnp.zeros(x.shape[0], jnp.int32))
    y, _ = neural_memory(q, k, v, rate, log_eta, log_keep, initial, empty, chunk=chunk)
    return (y[:, :, 0],)

  check(run, given, *recorded)
