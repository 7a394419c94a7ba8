"""Floating point operations of a traced function, counted equation by equation.

The compiler's own estimate counts the body of a loop once, which for recurrences is off by the length.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import dispatch
from training.state import tokens

# all other operations move, name or compare numbers
ARITHMETIC = re.compile(
  r"add(_any)?|sub|mul|div|rem|neg|abs|sign|max|min|clamp|floor|ceil|round|square|sqrt|rsqrt|cbrt|pow|integer_pow"
  r"|exp2?|expm1|log|log1p|logistic|a?(sin|cos|tan)h?|atan2|erfc?|erf_inv|lgamma|digamma|conj"
  r"|reduce_(sum|max|min|prod)|cum(sum|max|min|prod|logsumexp)"
)


def count(function: Callable, *args: Any, **kwargs: Any) -> float:
  """Counts the operations of one call; arguments may be shapes, and nothing is computed or compiled.

  A matrix product of m×k and k×n counts 2mkn, a Fourier transform of n points 5 n log2 n (half of it for real ones),
  everything else one for each number it makes, or reads where it reduces; complex products count four times, other
  complex arithmetic twice. Of branches the dearest counts, and the body of a `while`, whose length is unknown, once.
  """
  # experts as one grouped product, whose rows are known, and not as a loop over as many chunks as turn up
  with dispatch.use("ragged"), dispatch.unwatched():
    return _jaxpr(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def per_token(model: Any, variables: Any, inputs: jax.ShapeDtypeStruct) -> float:
  """Counts the operations of the parallel form, forward only, divided by the tokens of `inputs`.

  A training step does three times as many (both gradients); what a backward pass computes again does not count.
  """
  forward = lambda variables, inputs: model.apply(variables, inputs)
  return count(forward, variables, inputs) / tokens(inputs)


def _jaxpr(jaxpr: Any) -> float:
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> float:
  name = equation.primitive.name
  inner = [_jaxpr(jaxpr) for jaxpr in _inner(equation.params)]
  if inner:
    if name == "scan":
      return equation.params["length"] * sum(inner)
    # custom derivatives hold the function first and its rules after it, which are not run here
    return max(inner) if name == "cond" else sum(inner) if name == "while" else inner[0]
  made = sum(math.prod(out.aval.shape) for out in equation.outvars if hasattr(out.aval, "shape"))
  if name == "dot_general":
    (left, _), _ = equation.params["dimension_numbers"]
    return 2 * made * math.prod(equation.invars[0].aval.shape[axis] for axis in left) * _complex(equation, 4)
  if name == "ragged_dot_general":
    return _grouped(equation, made)
  if name == "conv_general_dilated":
    kernel, spec = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
    return 2 * made * math.prod(kernel) / kernel[spec[0]] * _complex(equation, 4)
  if name == "fft":
    return _fft(equation)
  if not ARITHMETIC.fullmatch(name):
    return 0.0
  if name.startswith(("reduce_", "cum")):
    made = sum(math.prod(var.aval.shape) for var in equation.invars)
  return float(made) * _complex(equation, 4 if name == "mul" else 2)


def _grouped(equation: Any, made: int) -> float:
  """Counts a product of rows with the matrix of their group, or of rows with rows for each group's matrix."""
  numbers = equation.params["ragged_dot_dimension_numbers"]
  (left, _), _ = numbers.dot_dimension_numbers
  summed = math.prod(equation.invars[0].aval.shape[axis] for axis in left)
  return 2 * made * summed / (1 if numbers.rhs_group_dimensions else equation.outvars[0].aval.shape[0])


def _fft(equation: Any) -> float:
  lengths = equation.params["fft_lengths"]
  points = math.prod(lengths)
  real = any(not jnp.issubdtype(var.aval.dtype, jnp.complexfloating) for var in [*equation.invars, *equation.outvars])
  rows = math.prod(equation.invars[0].aval.shape[: -len(lengths)])
  return rows * 5 * points * np.log2(max(points, 2)) * (0.5 if real else 1.0)


def _complex(equation: Any, factor: int) -> int:
  dtypes = [out.aval.dtype for out in equation.outvars if hasattr(out.aval, "dtype")]
  return factor if any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes) else 1


def _inner(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    for item in value if isinstance(value, (list, tuple)) else (value,):
      if hasattr(item, "jaxpr") and hasattr(item.jaxpr, "eqns"):
        yield item.jaxpr
      elif hasattr(item, "eqns"):
        yield item
