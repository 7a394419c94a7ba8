"""Loading onto several devices: each reads its own part, and together they are the whole."""

import os
import subprocess
import sys

import pytest

from tests.interop.released import OWN
from tests.sources import ROOT


@pytest.mark.slow
def test_each_device_reads_its_part():
  environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
  command = [sys.executable, "-m", "tests.interop.sharded", str(OWN / "gpt2")]
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  assert "on 8 devices" in done.stdout
