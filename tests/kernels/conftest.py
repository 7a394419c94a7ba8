"""What the tests of kernels for TPUs share."""

import jax
import pytest

from kernels import _compat


@pytest.fixture
def on_tpu(monkeypatch):
  """What chooses by platform sees a TPU, and its kernels are interpreted."""
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  # the interpreter compiles a program per kernel and core, which costs more than to run it
  jax.config.update("jax_disable_most_optimizations", True)
  try:
    with _compat.interpreted_tpu():
      yield
  finally:
    jax.config.update("jax_disable_most_optimizations", False)
