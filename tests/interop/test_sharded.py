"""Loading onto several devices: each reads its own part, and together they are the whole."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interop import plan
from interop.rows import join, row
from tests.interop.released import OWN
from tests.sources import ROOT


class Recorded:
  """Tensors of 2 columns that remember which of them were read."""

  def __init__(self, **sizes):
    numbers = np.arange(2 * sum(sizes.values()), dtype=np.float32).reshape(-1, 2)
    self.tensors = dict(zip(sizes, np.split(numbers, np.cumsum([*sizes.values()])[:-1]), strict=True))
    self.read_so_far = []

  def read(self, name):
    self.read_so_far.append(name)
    return self.tensors[name]


def test_of_a_table_in_several_tensors_those_are_read_that_a_part_needs():
  line = plan.Line(("a", "b", "c"), ("params:table",), row(("a", "b", "c"), "table", join(3, 3, 2)))
  for rows, names in ((slice(2, 5), ["a", "b"]), (slice(3, 6), ["b"]), (slice(None), ["a", "b", "c"])):
    tensors = Recorded(a=3, b=3, c=2)
    table = np.concatenate(list(tensors.tensors.values()))
    part = plan._read(tensors, jax.ShapeDtypeStruct((8, 2), jnp.float32), [(None, line, 0)], (rows, slice(1, 2)))
    np.testing.assert_array_equal(part, table[rows, 1:2])
    assert tensors.read_so_far == names


@pytest.mark.slow
def test_each_device_reads_its_part():
  environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", "tests.interop.sharded", str(OWN / "gpt2")]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  assert "on 8 devices" in done.stdout
