"""The kernels in C++ on CPUs with other vectors than this one's."""

import platform
import shutil
import subprocess

import jax
import pytest

from kernels import cpp
from tests import child
from tests.sources import ROOT

pytestmark = pytest.mark.skipif(
  platform.machine() != "x86_64" or not shutil.which("g++"), reason="the flags are those of g++ on x86-64"
)


@pytest.mark.parametrize("architecture", ["haswell", "x86-64"])
def test_vectors_fit_a_register(architecture):
  """Compilers take wider ones apart in memory, which makes kernels many times slower, and say so of calls."""
  command = ["g++", "-std=c++17", f"-march={architecture}", "-Werror=psabi", "-fsyntax-only", "-x", "c++"]
  command += [f"-I{jax.ffi.include_dir()}", f"-I{cpp.HEADERS}", "-"]
  done = subprocess.run(command, input='#include "tiles.h"', capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_kernels_without_the_widest_vectors(without, tmp_path):
  """A flag of the compiler's own is stronger than what it finds in this CPU."""
  files = [*(ROOT / "tests" / "kernels").glob("test_*in_cpp.py"), *(ROOT / "tests" / "kernels").glob("test_lstm.py")]
  files.append(ROOT / "tests" / "kernels" / "test_cpp.py")
  child.python(
    *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *map(str, files)),
    CXX=f"g++ {without}",
    JAX_COMPILATION_CACHE_DIR=str(tmp_path),
  )
  assert {path.name.partition("-")[0] for path in (tmp_path / "cpp").iterdir()} >= {"attention", "lstm", "matrix_state"}
