"""Data parallelism: no device needs the rows of another, whatever the mixer."""

import pytest

from tests import child, mixers

# what XLA does not divide by itself: scatters into rows, sorts, Fourier transforms
QUICK = ("softmax", "bigbird", "fnet", "moe")


def exchanges(names):
  return child.python("-m", "tests.kernels.rows_on_a_mesh", *names, JAX_NUM_CPU_DEVICES="2")


def test_some_mixers_exchange_no_rows():
  assert exchanges(QUICK) == ""


@pytest.mark.slow
def test_mixers_exchange_no_rows():
  assert exchanges(mixers.table("SMALL")) == ""
