import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_convolutions_and_attention_run_on_a_mesh():
  command = [sys.executable, "-m", "tests.kernels.convolutions_on_a_mesh"]
  env = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
  result = subprocess.run(command, cwd=Path(__file__).parents[2], env=env, capture_output=True, text=True)
  assert result.returncode == 0, result.stdout + result.stderr
