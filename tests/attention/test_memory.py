"""What training a mixer with a matrix for a state takes: memory that grows with the length, not with its square."""

import jax
import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from tests import sources

RECURRENT = sorted(name for name, file in sources.mixer_files().items() if file.parent.name == "recurrent")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURRENT)
def test_training_memory_grows_with_the_length(name):
  """As the compiler plans it, and it plans two lengths apart: four times the tokens take 1.5 to 6 times as much.

  What grows with the square would take 16 times as much.
  """
  module = build(name, width=32)

  def planned(t):
    x = jax.ShapeDtypeStruct((2, t, 32), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    loss = lambda variables, x: jnp.sum(jnp.square(module.apply(variables, x)))
    program = jax.jit(jax.grad(loss, argnums=(0, 1), allow_int=True)).lower(variables, x).compile()
    return program.memory_analysis().temp_size_in_bytes

  short, long = planned(1024), planned(4096)
  # something must be kept of every token
  assert 1.5 * short < long < 6 * short, f"{short} bytes for 1024 tokens, {long} for 4096"
