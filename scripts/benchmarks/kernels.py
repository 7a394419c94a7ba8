"""The primitives in every implementation that the device can run, those by name included, with floors and peers.

On an accelerator at the sizes the kernels are written for, on a CPU at small ones. With lengths given, rows of the
batch become fewer as they become longer, so that the number of tokens stays, down to one row.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels import dispatch, linear_scan
from layers import project
from scripts.benchmarks import floors
from scripts.benchmarks.case import Case, Kernel, Missing, Timed, fitted, pair, pulled, with_cotangent
from scripts.benchmarks.primitives import OPS
from scripts.peers import gpu_ops, s5_upstream
from scripts.peers.own_process import own_process

PASSES = ("forward", "forward+backward")


def cases(lengths: tuple[int, ...] = (), peers: tuple[str, ...] = ()) -> list[Case]:
  """Returns every primitive at its sizes, or at each of the lengths; S5's recurrence around one as S5 has it."""
  accelerator = jax.default_backend() != "cpu"
  rows = []
  for name, op in OPS.items():
    for sizes in op.large if accelerator else op.small:
      for length in lengths or (sizes["t"],):
        at = {**sizes, "b": max(1, sizes["b"] * sizes["t"] // length), "t": length}
        for dtype in ("bfloat16", "float32") if accelerator else ("float32",):
          rows += one(name, at, dtype, peers)
  return rows if lengths else rows + s5_recurrence()


def one(name: str, sizes: dict[str, int], dtype: str, peers: tuple[str, ...] = ()) -> list[Case]:
  """Returns the implementations of one op at one size, in the order of preference, then peers."""
  op = OPS[name]
  text = lambda sizes: " ".join(f"{letter}={size}" for letter, size in sizes.items())
  known = op.floor(**{z: sizes[z] for z in op.floor_sizes}, s=floors.itemsize(dtype))
  passes = {PASSES[0]: known[:1]} | ({PASSES[1]: tuple(known)} if known.backward.bytes else {})
  given = name, tuple(sizes.items()), dtype
  rows = []
  for mode, works in passes.items():
    group = f"{name}, {text(sizes)}, {dtype}, {mode}"
    wide = text({z: size for z, size in sizes.items() if z not in "bt"})
    about = Kernel(f"{name}, {wide}, {dtype}, {mode}", sizes["t"], dtype, works)
    for impl in names(op.impls):
      make = functools.partial(timed, functools.partial(op.run, impl), given, mode)
      rows.append(Case(group, f"ours, {impl}", make, about))
    if op.plain is not None:
      rows.append(Case(group, "jax.nn alone", functools.partial(timed, op.plain, given, mode), about))
    for label, make in gpu_ops.made(peers, name, sizes, dtype, mode):
      rows.append(Case(group, label, make, about))
  return rows


def names(impls: dispatch.Impls) -> list[str]:
  """Those for this kind of device, in the order in which "auto" tries them; those it never takes last."""
  kind = jax.default_backend()
  order = dispatch.PREFERENCE.get(kind, dispatch.ACCELERATOR_PREFERENCE)
  here = [name for name in order if name in impls and name in (name.replace("pallas", ""), f"pallas_{kind}")]
  return sorted(here, key=lambda name: name in dispatch.UNPROVEN)


def timed(run: Callable, given: tuple, mode: str) -> Timed:
  """Compiled for either pass, on what `drawn(*given)` gives.

  Raises:
    Missing: the implementation says why it cannot run these arguments, or they do not fit.
  """
  draw, shapes = functools.partial(drawn, *given), jax.eval_shape(functools.partial(drawn.__wrapped__, *given))
  try:
    if mode == "forward":
      return fitted(run, shapes, draw)
    with_weights = functools.partial(with_cotangent, run)
    return fitted(pulled(run), jax.eval_shape(with_weights, *shapes), lambda: with_weights(*draw()))
  except ValueError as e:
    if "cannot run on" not in str(e):
      raise
    raise Missing(str(e)) from e


@functools.lru_cache(maxsize=1)
def drawn(name: str, sizes: tuple[tuple[str, int], ...], dtype: str) -> tuple:
  """Draws the arguments of an op, once for all that run on them."""
  keys = iter(jax.random.split(jax.random.key(0), 8))

  def normal(*shape, dtype=dtype):
    return jax.random.normal(next(keys), shape, dtype)

  return OPS[name].draw(normal, **dict(sizes))


def s5_recurrence() -> list[Case]:
  """B u, scan, Re(C h) as S5 computes it, beside the form upstream S5 uses."""
  sizes = {"batch": 8, "length": 4096, "width": 128, "state": 64}
  args = s5_upstream.arguments(**sizes)
  group = "S5 recurrence, B8 L4096 width 128 64 complex states"

  def ours(impl):
    def run(a_re, a_im, B, C, u):
      parts = jnp.split(project(u, jnp.concatenate([B[0], B[1]], axis=1), u.dtype), 2, axis=-1)
      empty = jnp.zeros((u.shape[0], *a_re.shape), jnp.complex64)
      h, _ = linear_scan.linear_scan(jax.lax.complex(a_re, a_im), jax.lax.complex(*parts), empty, impl=impl)
      return project(jnp.concatenate([h.real, h.imag], axis=-1), jnp.concatenate([C[0], -C[1]]), u.dtype)

    return run

  rows = [("ours (xla)", ours("xla")), ("ours, associative", ours("associative"))]
  cases = [case for name, fn in rows for case in pair(group, name, fn, args)]
  cases += pair(group, "upstream's form, with our settings", s5_upstream.form, args)
  make = functools.partial(own_process, "scripts.peers.s5_upstream:recurrence", **sizes)
  for mode in PASSES:
    cases.append(Case(f"{group}, {mode}", "upstream's form", functools.partial(make, mode=mode)))
  return cases
