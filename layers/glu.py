"""The activation after the state space in S4's family: GELU and a linear map to twice the width with its gate."""

import jax
from jaxtyping import Array, Float

from layers.activations import gelu, gelu_tanh
from layers.dense import Dense, torch_dense

# names of what may follow; GELU inside of "glu" is the exact one
ACTIVATIONS = ("glu", "gelu", "gelu_tanh", "none")


def glu_dense(width: int) -> Dense:
  """Returns the linear map to twice the width, which starts at PyTorch's initial values."""
  return torch_dense(2 * width, ("inner", "embed"), fan_in=width, use_bias=True)


def activate(y: Float[Array, "*b d"], kind: str, dense: Dense | None) -> Float[Array, "*b d"]:
  """Returns y for "none", GELU(y) for "gelu", and GLU(dense(GELU(y))) for "glu", the only kind with a `dense`."""
  if kind == "none":
    return y
  y = gelu_tanh(y) if kind == "gelu_tanh" else gelu(y)
  return y if dense is None else jax.nn.glu(dense(y))
