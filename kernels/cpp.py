"""Builds C++ kernels for CPUs from the source tree: when one is first asked for, never at import.

A library is a file in a cache folder, named by a hash of all it was made of: the source, headers, the compiler's
command, and the macros that it defines for this CPU, its own version among them. So a file of another source or for
another CPU is never loaded. It gets its name when it is complete, by a rename: processes that build the same do no
harm to each other.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact

from kernels import dispatch
from kernels.inputs import Reset
from mistake import Mistake

HEADERS = Path(__file__).parent
COMPILERS = ("g++", "clang++")
# Products and sums may be fused, which no standard of C++ allows unasked; nothing else is changed in the arithmetic.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared", "-w")


class Unavailable(Exception):
  """There is no library; the message says why."""


def why_not(source: Path, *arrays: Inexact[Array, "..."]) -> str | None:
  """Returns why the kernels of a source file cannot run these arrays; builds the kernels if nothing forbids it."""
  if reason := dispatch.elsewhere("cpu"):
    return reason
  if dtypes := {z.dtype for z in arrays} - {jnp.dtype(jnp.float32)}:
    return f"it computes in float32, not in {sorted(map(str, dtypes))}"
  return _registered(source)


@functools.cache
def _registered(source: Path) -> str | None:
  """Builds and loads a source file, and tells XLA of those of its `handlers` that it has."""
  try:
    library = ctypes.CDLL(str(built(source, folder())))
  except (Unavailable, OSError) as e:
    return str(e)
  for name in handlers(source):
    if handler := getattr(library, name, None):
      jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(handler), platform="cpu")
  return None


def handlers(source: Path) -> tuple[str, str]:
  """Returns names of the forward and the backward pass."""
  return f"{source.parent.name}_forward", f"{source.parent.name}_backward"


def call(
  name: str,
  shapes: Iterable[tuple[int, ...]],
  parts: int | None = None,
  in_place: dict[int, int] | None = None,
  **settings: np.generic,
) -> Callable[..., Any]:
  """Returns a handler that gives float32 arrays of these shapes, and cuts its work into `parts` of each group, if it
  has any.

  Under vmap it runs once for each element after the other, with all threads each. Its derivatives are another handler,
  which has none: those of the second order are refused.

  Args:
    in_place: numbers of arguments -> those of results that are written over them.
    settings: further attributes of the handler, as numbers of the types that it declares.
  """
  results = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
  handler = jax.ffi.ffi_call(name, results, vmap_method="sequential", input_output_aliases=in_place)
  if parts is not None:
    settings["parts"] = np.int64(parts)

  @jax.custom_jvp
  def run(*args):
    return handler(*args, **settings)

  @run.defjvp
  def refuse(*_):
    raise Mistake(f"{name}: C++ has first derivatives alone, by jax.grad or jax.vjp; KERNEL_IMPL=reference has all")

  return run


def parts(units: int, most: int) -> int:
  """Returns into how many parts each of so many units of work is cut, at most `most`, so that every core has one."""
  cores = os.cpu_count() or 1
  return max(1, min(-(-cores // max(1, units)), most))


def mask(reset: Reset) -> Bool[Array, "..."]:
  """Returns the mask as handlers take it: empty if no document starts."""
  return jnp.zeros((0, 0), bool) if reset is None else reset


def folder() -> Path:
  """Returns the folder of the programs that XLA compiled, if it keeps them on a disk, else one in the user's cache."""
  cache = jax.config.jax_compilation_cache_dir
  if cache and "://" not in cache:
    return Path(cache) / "cpp"
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "state-space-models-jax"


def built(source: Path, where: Path) -> Path:
  """Returns the library of a source file in a folder, which is built if it is not there.

  Raises:
    Unavailable: there is no compiler, it fails, or the folder cannot be written.
  """
  command = [*_compiler(), *FLAGS, f"-I{jax.ffi.include_dir()}", f"-I{HEADERS}"]
  path = where / f"{source.parent.name}-{_key(source, command)}.so"
  if path.exists():
    return path
  try:
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where) as unfinished:
      library = Path(unfinished) / path.name
      _output([*command, str(source), "-o", str(library)])
      library.replace(path)
  except OSError as e:
    raise Unavailable(f"it cannot be built in {where}: {e}") from e
  return path


def _compiler() -> list[str]:
  """Returns the command of the compiler that CXX names, or of one that is installed."""
  if command := shlex.split(os.environ.get("CXX", "")):
    return command
  if compiler := next(filter(None, map(shutil.which, COMPILERS)), None):
    return [compiler]
  raise Unavailable(f"there is no C++ compiler: none of {', '.join(COMPILERS)}, and CXX names none")


def _key(source: Path, command: list[str]) -> str:
  macros = _output([*command, "-dM", "-E", "-x", "c++", os.devnull])
  headers = [
    *sorted(Path(jax.ffi.include_dir()).glob("xla/ffi/api/*.h")),
    *sorted(HEADERS.glob("*.h")),
    *sorted(source.parent.glob("*.h")),
  ]
  # headers count by what is in them, so that checkouts share a library
  words = [word for word in command if not word.startswith("-I")]
  parts = [" ".join(words).encode(), macros, *(file.read_bytes() for file in (source, *headers))]
  digest = hashlib.sha256()
  for part in parts:
    digest.update(hashlib.sha256(part).digest())
  return digest.hexdigest()[:32]


def _output(command: list[str]) -> bytes:
  """Runs a command of the compiler and returns its output."""
  try:
    return subprocess.run(command, capture_output=True, check=True).stdout
  except OSError as e:
    raise Unavailable(f"the compiler {command[0]} cannot be run: {e}") from e
  except subprocess.CalledProcessError as e:
    lines = e.stderr.decode(errors="replace").strip().splitlines()
    reason = next((line for line in lines if "error" in line), lines[-1] if lines else f"code {e.returncode}")
    raise Unavailable(f"the compiler {command[0]} fails: {reason}") from e
