"""What all tests run under: shapes agree over a call, types fit, and a file stays on one worker."""

import os

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from hybrids import pattern
from kernels import linear_scan


def test_shapes_of_arguments_have_to_agree():
  a, x, h = jnp.ones((2, 3, 4)), jnp.ones((2, 3, 5)), jnp.ones((2, 4))
  with pytest.raises(TypeCheckError):
    linear_scan.linear_scan(a, x, h)


def test_types_without_shapes_are_checked_too():
  with pytest.raises(TypeError, match="violates type hint"):
    pattern.tile(7, "three")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_of_a_file_stay_on_one_worker(request):
  """pytest 9.2 has no use for how pytest-xdist 3.8 names groups: files were torn apart and compiled twice."""
  assert request.node.nodeid.endswith("@tests/test_type_checker.py")
