"""How tests compile: XLA leaves out what only makes programs fast, since most tests compile more than they compute."""

import functools
import inspect
import os
from typing import Any

import jax
from jax._src import compiler

UNOPTIMIZED = {"xla_backend_optimization_level": 0}


@functools.cache
def quick() -> dict[str, Any]:
  """Compiler options that make a small program in a fifth of the time, as far as this version of XLA knows them."""
  known: dict[str, Any] = {}
  for name, value in (
    *UNOPTIMIZED.items(),
    ("xla_cpu_use_fusion_emitters", False),
    ("xla_cpu_parallel_codegen_split_count", 1),
  ):
    try:
      jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
      known[name] = value
    except jax.errors.JaxRuntimeError:
      continue
  return known


def flags() -> str:
  """The same as `XLA_FLAGS` of a process."""
  return " ".join(f"--{name}={str(value).lower()}" for name, value in quick().items())


def everywhere() -> None:
  """Adds `quick` to the options of all programs that this process compiles unoptimized, and of processes it starts.

  JAX has no public setting for compiler options of all programs, and reads XLA_FLAGS once. A JAX that makes its options
  otherwise compiles as usual.
  """
  os.environ.setdefault("XLA_FLAGS", flags())
  options, plain = quick(), getattr(compiler, "get_compile_options", None)
  if plain is None or "env_options_overrides" not in inspect.signature(plain).parameters:
    return

  def get_compile_options(*args, env_options_overrides=None, **kwargs):
    given = env_options_overrides or {}
    if jax.config.read("jax_disable_most_optimizations") or UNOPTIMIZED.items() <= given.items():
      given = {**options, **given}
    return plain(*args, env_options_overrides=given, **kwargs)

  compiler.get_compile_options = get_compile_options
