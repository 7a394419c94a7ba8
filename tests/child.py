"""Python in a process of its own, for what a process is told at its start: devices, settings, what it imports."""

import os
import subprocess
import sys

from tests.sources import ROOT


def python(*command, **environment):
  """Runs `python *command` in the root of the repository and returns what it printed; it must end well."""
  settings = {**os.environ, **environment}
  done = subprocess.run([sys.executable, *command], cwd=ROOT, env=settings, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout
