"""What every test runs under: the CPU, shape checks on every annotated function, and programs compiled in a hurry.

Most tests compile more than they compute, so XLA leaves most optimizations out, except in tests that are marked `slow`
or `optimized`. JAX_DISABLE_MOST_OPTIMIZATIONS=0 leaves none out.
"""

import os
from pathlib import Path

import jax
import jaxtyping
import pytest

from tests import quick, type_checker

pytest.register_assert_rewrite("tests.contract")
CHECKED = ("kernels", "layers", "ssm", "attention", "hybrids", "training", "inference")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# threads of XLA's pool, for the tests that start a process with several CPU devices: see training/platform.py
os.environ.setdefault("NPROC", "32")
jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
# in the environment, as is the cache below, so that programs which tests start find it too
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
HURRY = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
jaxtyping.jaxtyped = type_checker.jaxtyped
jaxtyping.install_import_hook(list(CHECKED), f"{type_checker.__name__}.check").__enter__()

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
# tests compile many small programs, which the default threshold of a second would leave out
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_sessionstart(session):
  # workers that run the tests for this process would take its XLA_FLAGS, in tests marked `optimized`, too
  controller = session.config.getoption("numprocesses", 0) and not hasattr(session.config, "workerinput")
  if HURRY and not controller:
    quick.everywhere()


def pytest_runtest_setup(item):
  optimized = any(item.get_closest_marker(name) for name in ("slow", "optimized"))
  jax.config.update("jax_disable_most_optimizations", HURRY and not optimized)


@pytest.fixture
def mistaken(capsys):
  """Checks that a program ends with code 2 and one line on standard error, which has all the words."""

  def check(main, arguments, *words):
    capsys.readouterr()
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    assert all(word in error for word in words), error

  return check


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Keeps the tests of one file on one worker, unless they name their own group (the contract suite: one per mixer)."""
  for item in items:
    if item.get_closest_marker("xdist_group") is None:
      item.add_marker(pytest.mark.xdist_group(item.location[0]))
