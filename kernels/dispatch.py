"""Chooses one implementation of an op, and spreads it over the mesh. The only place in the project that does either."""

import contextlib
import importlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mistake import Mistake

Rule = Callable[..., str | None]  # says why an implementation cannot run on these arguments, or None
Impls = Mapping[str, tuple[Callable, Rule]]

# A sequential loop in cache beats the extra work of a parallel scan on a CPU; on an accelerator it is latency-bound.
PREFERENCE = {
  "cpu": (
    *("cpp", "xla", "lags", "by_token", "fft", "associative", "products", "by_tap", "chunks", "ragged", "causal"),
    "reference",
  )
}
# forced to find out whether a kernel is wrong, and to count operations: none of KERNELS is taken beside them
PLAIN = ("xla", "reference", "ragged")
KERNELS = ("cpp", "cudnn", "splash", "pallas_gpu", "pallas_tpu")
ACCELERATOR_PREFERENCE = (
  *("cudnn", "splash", "pallas_gpu", "pallas_tpu"),
  *("associative", "products", "by_tap", "ragged", "chunks", "xla", "lags", "by_token", "fft", "causal", "reference"),
)
NAMES = (*PREFERENCE["cpu"], *KERNELS[1:])
# These are taken only by name, `impl=` or `KERNEL_IMPL=`, but for what a device has proven of them: proven.json, as
# scripts/device_day.py writes it, names the types of numbers of each op, {"pallas_gpu": {"ssd": ["bfloat16"]}}.
UNPROVEN = ("pallas_gpu", "pallas_tpu")
PROVEN: Mapping[str, Mapping[str, Sequence[str]]] = json.loads(Path(__file__).with_name("proven.json").read_text())

# Which axes of an op are cut together over which axes of the mesh: batch; heads, groups, experts and channels; tokens,
# where each is by itself.
CUTS = {"b": ("data", "fsdp"), "hge": ("tensor",), "i": ("sequence",)}

_forced = "auto"


def always(*_: Any, **__: Any) -> None:
  """Is the rule of an implementation that runs on everything."""


def imported(module: str, op: str, wrap: Callable[[Callable], Callable] = lambda form: form) -> tuple[Callable, Rule]:
  """Returns an implementation and its rule, `why_not`, from a module that is imported when one of them is first called.

  Kernels need Pallas, which takes longer to import than all else here, and most runs call none.

  Args:
    wrap: is applied to the implementation.
  """

  def member(name: str) -> Callable:
    return lambda *args, **kwargs: getattr(importlib.import_module(module), name)(*args, **kwargs)

  return wrap(member(op)), member("why_not")


def force(impl: str) -> None:
  """Makes `impl` the first choice of every op called with `impl="auto"` in this process; `"auto"` undoes it.

  An op that has no such implementation, or cannot run it on its arguments, chooses as usual, but if "xla" or
  "reference" is forced, none written for one kind of device. The environment variable `KERNEL_IMPL` sets the initial
  value. Compiled functions keep the choice they were traced with.

  Raises:
    ValueError: no op has an implementation of that name.
  """
  global _forced
  if impl not in ("auto", *NAMES):
    raise Mistake(f"kernels: no implementation {impl!r}; choose from {['auto', *NAMES]}")
  _forced = impl


@contextlib.contextmanager
def use(impl: str) -> Iterator[None]:
  """Calls `force(impl)` for the length of a `with` block."""
  before = _forced
  force(impl)
  try:
    yield
  finally:
    force(before)


# op -> name -> why it was not taken, empty for the one that was
Chosen = dict[str, dict[str, str]]


class Watched(Chosen):
  """Holds what was chosen, and for each op and implementation that was taken the types of numbers it was taken for."""

  def __init__(self) -> None:
    super().__init__()
    self.types: dict[tuple[str, str], set[str]] = {}


# all that this process has traced: a program may take from JAX's cache what was traced for another
recorded = Watched()
_watching = [recorded]


@contextlib.contextmanager
def watch() -> Iterator[Watched]:
  """Collects what `pick` takes inside a `with` block, as programs are traced, and why nothing preferred to it."""
  chosen = Watched()
  _watching.append(chosen)
  try:
    yield chosen
  finally:
    # by identity: two that have seen the same are equal
    _watching[:] = [each for each in _watching if each is not chosen]


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
  """Leaves out what is traced inside a `with` block and never run."""
  before = _watching[:]
  _watching.clear()
  try:
    yield
  finally:
    _watching[:] = before


def describe(chosen: Chosen) -> str:
  """Returns in words what `watch` has collected: "ssd: cpp; short_conv: xla (not cpp: the reason)"."""
  parts = []
  for op, names in sorted(chosen.items()):
    taken = [name for name, reason in names.items() if not reason]
    refused = [f"not {name}: {reason}" for name, reason in names.items() if reason]
    parts.append(f"{op}: {' and '.join(taken)}" + (f" ({'; '.join(refused)})" if refused else ""))
  return "; ".join(parts)


def _note(op: str, taken: str, numbers: str, reasons: Mapping[str, str | None], impls: Impls) -> None:
  for chosen in _watching:
    chosen.types.setdefault((op, taken), set()).add(numbers)
    names = chosen.setdefault(op, {})
    for name, reason in reasons.items():
      # what one call cannot use another may
      if names.get(name) != "":
        names[name] = reason or ""
    for name in UNPROVEN:
      if name in impls and name != taken and name.endswith(platform()):
        names.setdefault(name, f"no device has proven it for {numbers}; KERNEL_IMPL takes it")


def type_of(*args: Any) -> str:
  """Returns the type of numbers that arguments have: of several the complex one, then that of the fewest bits."""
  types = {leaf.dtype for leaf in jax.tree.leaves(args) if jnp.issubdtype(getattr(leaf, "dtype", bool), jnp.inexact)}
  order = lambda dtype: (not jnp.issubdtype(dtype, jnp.complexfloating), dtype.itemsize)
  return str(min(types, key=order)) if types else "no numbers"


def platform() -> str:
  """Returns the kind of device that programs are made for: "cpu", "gpu" or "tpu"."""
  return jax.default_backend()


def elsewhere(kind: str) -> str | None:
  """Returns why a kernel written for one kind of device cannot run on the one that programs are made for, or None."""
  return None if platform() == kind else f"it needs a {kind.upper()}, not a {platform()}"


def multiplies_bfloat16() -> bool:
  """Returns whether the device multiplies bfloat16 and adds up in float32, at a rate above that of float32."""
  return platform() != "cpu"


def tuned(cpu: Any, accelerator: Any) -> Any:
  """Returns the size of blocks that suits the device that programs are made for."""
  return cpu if platform() == "cpu" else accelerator


def prefer(*names: str) -> str:
  """Returns the algorithm that "auto" takes on this platform, for a part of an op that can run all of these."""
  order = PREFERENCE.get(platform(), ACCELERATOR_PREFERENCE)
  return min(names, key=lambda name: (name != _forced, _forced in PLAIN and name in KERNELS, order.index(name)))


def pick(op: str, impls: Impls, want: str, *args: Any, **kwargs: Any) -> Callable:
  """Returns the implementation named `want`, or for `"auto"` the preferred one among those able to run these arguments.

  Args:
    op: the op's name, for messages.
    impls: name -> (function, rule); the rule gets the arguments and returns why it cannot run them, or None.
    want: "auto" or a name in `impls`.

  Raises:
    ValueError: `op` has no implementation `want`, it cannot run these arguments, or none can; with the reasons.
  """
  assert set(impls) <= set(NAMES), f"{op}: implementations {list(impls)} are not all in dispatch.NAMES {NAMES}"
  numbers = type_of(args, kwargs)
  if want == "auto":
    order = [name for name in PREFERENCE.get(platform(), ACCELERATOR_PREFERENCE) if name in impls]
    proven = lambda name: numbers in PROVEN.get(name, {}).get(op, ())
    order = [name for name in order if name not in UNPROVEN or name == _forced or proven(name)]
    order.sort(key=lambda name: (name != _forced, _forced in PLAIN and name in KERNELS))
  elif want in impls:
    order = [want]
  else:
    raise Mistake(f"{op}: no implementation {want!r}; choose from {['auto', *impls]}")
  reasons = {}
  for name in order:
    fn, why_not = impls[name]
    reasons[name] = why_not(*args, **kwargs)
    if reasons[name] is None:
      _note(op, name, numbers, reasons, impls)
      return fn
  why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
  raise Mistake(f"{op} cannot run on {platform()} ({why}); other choices: {_others(impls, reasons)}")


def _others(impls: Impls, tried: Mapping[str, Any]) -> list[str]:
  return ["auto", *(name for name in impls if name not in tried)]


def shard(
  fn: Callable, axes_in: Sequence[str], axes_out: Sequence[str], cuts: Mapping[str, tuple[str, ...]] = CUTS
) -> Callable:
  """Makes each device run `fn`, a kernel of our own that the compiler could not divide, on its own part.

  Over the ambient mesh (`jax.set_mesh`) the batch is cut over data and fsdp; heads, groups, experts and channels over
  tensor; the axis "i" of tokens that do not depend on each other over sequence. An axis of the mesh that does not
  divide all it would cut is left out; an op's axis of size 1 is given to every device.
  Without a mesh, or inside another shard_map, `fn` itself runs.

  Args:
    fn: takes and returns arrays, independent along every axis that is cut. An argument may be None.
    axes_in: the letters of each argument's axes, as "b t e"; those of `CUTS` may be cut, others never are.
    axes_out: those of each result; `fn` returns a tuple of this length.
    cuts: which letters are cut, and by what, if not as above.
  """

  def sharded(*args):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
      return fn(*args)
    sizes = {
      letter: size
      for axes, arg in zip(axes_in, args, strict=True)
      if arg is not None
      for letter, size in zip(axes.split(), arg.shape, strict=True)
    }
    cut_by = cut(sizes, mesh.shape, cuts)
    spec = lambda axes: jax.P(*(cut_by.get(letter) for letter in axes.split()))
    specs_in = tuple(jax.P() if arg is None else spec(axes) for axes, arg in zip(axes_in, args))
    # No replication check: Pallas calls do not say over which axes their results vary.
    return jax.shard_map(fn, in_specs=specs_in, out_specs=tuple(map(spec, axes_out)), check_vma=False)(*args)

  return sharded


def cut(
  sizes: Mapping[str, int], mesh: Mapping[str, int], cuts: Mapping[str, tuple[str, ...]] = CUTS
) -> dict[str, tuple[str, ...]]:
  """Returns for each letter the mesh axes that cut it."""
  by = {}
  for together, names in cuts.items():
    letters = [letter for letter in together if sizes.get(letter, 1) > 1]
    taken: tuple[str, ...] = ()
    for name in names:
      parts = math.prod(mesh[n] for n in (*taken, name) if n in mesh)
      if name in mesh and all(sizes[letter] % parts == 0 for letter in letters):
        taken = (*taken, name)
    by.update({letter: taken for letter in letters})
  return by


force(os.environ.get("KERNEL_IMPL", "auto"))
