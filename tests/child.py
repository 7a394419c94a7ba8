"""Python in a process of its own, for what a process is told at its start: devices, settings, what it imports."""

import concurrent.futures
import os
import socket
import subprocess
import sys

from tests.sources import ROOT


def python(*command, **environment):
  """Runs `python *command` in the root of the repository and returns what it printed; it must end well."""
  settings = {**os.environ, **environment}
  done = subprocess.run([sys.executable, *command], cwd=ROOT, env=settings, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def together(*commands, **environment):
  """Runs several of them at the same time, and returns what each printed."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return list(pool.map(lambda command: python(*command, **environment), commands))


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return str(s.getsockname()[1])
