"""The checks that all tests run under: shapes agree over a call, and types fit."""

import jax.numpy as jnp
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from hybrids import pattern
from kernels import linear_scan


def test_shapes_of_arguments_have_to_agree():
  a, x, h = jnp.ones((2, 3, 4)), jnp.ones((2, 3, 5)), jnp.ones((2, 4))
  with pytest.raises(TypeCheckError):
    linear_scan.linear_scan(a, x, h)


def test_types_without_shapes_are_checked_too():
  with pytest.raises(BeartypeCallHintViolation):
    pattern.tile(7, "three")
