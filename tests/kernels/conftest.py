"""Double precision is for the slow suite; and what the tests of kernels for TPUs and GPUs share."""

from pathlib import Path

import jax
import pytest

from kernels import cpp, gpu
from tests.kernels import interpreters


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Tests of one comparison in both precisions have the second, by its name, in the slow suite."""
  for item in items:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if item.path.parent == Path(__file__).parent and params.get("dtype") in ("float64", "complex128"):
      item.add_marker(pytest.mark.slow)


@pytest.fixture
def on_tpu(monkeypatch):
  """What chooses by platform sees a TPU, and its kernels are interpreted."""
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  # the interpreter compiles a program per kernel and core, which costs more than to run it, in the slow suite too
  jax.config.update("jax_disable_most_optimizations", True)
  with interpreters.interpreted_tpu():
    yield


@pytest.fixture
def on_gpu(monkeypatch):
  """Lets what chooses by platform see a GPU."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(gpu, "compute_capability", lambda: 9.0)


@pytest.fixture(scope="module")
def library(request):
  """Builds the C++ kernel that a test file names; where that cannot be, its tests are skipped with the reason."""
  if reason := cpp.why_not(request.module.kernel.SOURCE):
    pytest.skip(reason)
