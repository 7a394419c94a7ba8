"""The primitives in every implementation that the device can run, those by name included, with floors and peers.

On an accelerator at the sizes the kernels are written for, on a CPU at small ones. With lengths given, rows of the
batch become fewer as they become longer, so that the number of tokens stays, down to one row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels import (
  attention,
  delta_rule,
  dispatch,
  gated_linear_attention,
  linear_scan,
  long_conv,
  lti,
  rg_lru,
  selective_scan,
  short_conv,
  ssd,
)
from layers import project
from scripts.benchmarks import floors
from scripts.benchmarks.case import Case, Kernel, Missing, Timed, fitted, pair, pulled, with_cotangent
from scripts.peers import gpu_ops, s5_upstream
from scripts.peers.own_process import own_process
from ssm.lti import diagonal

PASSES = ("forward", "forward+backward")


class Op(NamedTuple):
  """One primitive: how its arguments are drawn, `draw(normal, **sizes)`, and what runs on them, `run(impl, *args)`.

  `normal(*shape)` gives other random numbers at each call; with `dtype=` of another dtype than the case's.
  """

  draw: Callable[..., tuple]
  run: Callable[..., Any]
  impls: dispatch.Impls
  small: tuple[dict[str, int], ...]
  large: tuple[dict[str, int], ...]
  floor: Callable[..., floors.Passes]
  floor_sizes: str  # the sizes that its floor wants
  plain: Callable | None = None  # the same in JAX itself


def cases(lengths: tuple[int, ...] = (), peers: tuple[str, ...] = ()) -> list[Case]:
  """Every primitive at its sizes, or at each of the lengths; S5's recurrence around one of them as S5 has it."""
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
  """The implementations of one op at one size, in the order of preference, then peers."""
  op = OPS[name]
  text = lambda sizes: " ".join(f"{letter}={size}" for letter, size in sizes.items())
  known = op.floor(**{z: sizes[z] for z in op.floor_sizes}, s=floors.itemsize(dtype))
  passes = dict(zip(PASSES, (known[:1], tuple(known))))
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
  """The arguments of an op, once for all that run on them."""
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


def _scan(normal, b, t, n):
  return jax.nn.sigmoid(normal(b, t, n) + 3), normal(b, t, n), normal(b, n, dtype="float32")


def _gated_scan(normal, b, t, e):
  """Both gates half open, and decays around 0.93 a token."""
  u, r, i = (normal(b, t, e) for _ in range(3))
  return u, r, i, normal(e, dtype="float32") - 4, normal(b, e, dtype="float32")


def _selective(normal, b, t, e, n, g):
  A = -jnp.broadcast_to(jnp.arange(1.0, n + 1), (e, n))
  B, C = normal(b, t, g, n), normal(b, t, g, n)
  return normal(b, t, e), jax.nn.softplus(normal(b, t, e) - 3), A, B, C, normal(b, e, n, dtype="float32")


def _gated_selective(normal, b, t, e, n, g):
  """Steps before softplus."""
  x, _, A, B, C, h = _selective(normal, b, t, e, n, g)
  return x, normal(b, t, e) - 3, A, B, C, h, normal(e, dtype="float32"), normal(b, t, e)


def _heads(normal, b, t, h, g, k, p):
  """Mamba-2's: B and C are shared by the heads of a group."""
  q, key = (normal(b, t, g, k) / k**0.5 for _ in range(2))
  return q, key, normal(b, t, h, p), -jax.nn.softplus(normal(b, t, h) - 3), normal(b, h, k, p, dtype="float32")


def _gated(normal, b, t, h, k, p):
  """A decay by row of the state."""
  q, key = (normal(b, t, h, k) / k**0.5 for _ in range(2))
  return q, key, normal(b, t, h, p), jax.nn.log_sigmoid(normal(b, t, h, k)) / 16, normal(b, h, k, p, dtype="float32")


def _delta(normal, b, t, h, k, p):
  """A gated delta net: one decay a head; keys of length one, and what they write with a strength below one."""
  q, key = normal(b, t, h, k), normal(b, t, h, k)
  q, key = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in (q, key))
  log_a = jax.nn.log_sigmoid(normal(b, t, h, 1)) / 16
  stored = key * jax.nn.sigmoid(normal(b, t, h, 1))
  return q, stored, normal(b, t, h, p), key * jnp.exp(log_a), normal(b, h, k, p, dtype="float32"), None, log_a


def _system(normal, b, t, e, n):
  """S4D-Lin with n complex numbers for each pair; as many taps as `lti` asks for."""
  log_A = 0.01 * jax.lax.complex(jnp.full((e, n), -0.5), jnp.pi * jnp.broadcast_to(jnp.arange(float(n)), (e, n)))
  B = jnp.full((e, n), 0.01, jnp.complex64)
  C = jax.lax.complex(normal(e, n, dtype="float32"), normal(e, n, dtype="float32"))
  recurrence = diagonal.Recurrence(log_A, B, C, normal(e, dtype="float32"))
  _, c = lti.plan(t, packed=True)
  return normal(b, t, e), diagonal.system(recurrence, c), jnp.zeros((b, e, n), jnp.complex64)


def _attended(normal, b, t, h, k):
  return tuple(normal(b, t, h, k) for _ in range(3))


OPS = {
  "selective_scan": Op(
    _selective,
    lambda impl, *args: selective_scan.selective_scan(*args, impl=impl)[0],
    selective_scan.IMPLS,
    (dict(b=4, t=1024, e=512, n=16, g=1), dict(b=16, t=256, e=256, n=16, g=1)),
    (dict(b=8, t=2048, e=2048, n=16, g=1),),
    floors.selective_scan,
    "bteng",
  ),
  "gated_selective_scan": Op(
    _gated_selective,
    lambda impl, *args: selective_scan.selective_scan(*args, softplus=True, impl=impl)[0],
    selective_scan.IMPLS,
    (dict(b=4, t=1024, e=512, n=16, g=1),),
    (dict(b=8, t=2048, e=2048, n=16, g=1),),
    floors.gated_selective_scan,
    "bteng",
  ),
  "linear_scan": Op(
    _scan,
    lambda impl, *args: linear_scan.linear_scan(*args, impl=impl)[0],
    linear_scan.IMPLS,
    (dict(b=4, t=1024, n=512),),
    (dict(b=8, t=2048, n=2560),),
    floors.linear_scan,
    "btn",
  ),
  "rg_lru": Op(
    _gated_scan,
    lambda impl, *args: rg_lru.rg_lru(*args, impl=impl)[0],
    rg_lru.IMPLS,
    (dict(b=4, t=1024, e=512),),
    (dict(b=8, t=2048, e=2560),),
    floors.rg_lru,
    "bte",
  ),
  "ssd": Op(
    _heads,
    lambda impl, *args: ssd.ssd(*args, impl=impl)[0],
    ssd.IMPLS,
    (dict(b=4, t=1024, h=8, g=1, k=64, p=64),),
    tuple(dict(b=16, t=2048, h=h, g=1, k=128, p=64) for h in (24, 48, 80)),
    floors.ssd,
    "bthgkp",
  ),
  "gated_linear_attention": Op(
    _gated,
    lambda impl, *args: gated_linear_attention.gated_linear_attention(*args, impl=impl)[0],
    gated_linear_attention.IMPLS,
    (dict(b=2, t=1024, h=4, k=64, p=64),),
    (dict(b=8, t=2048, h=16, k=128, p=128),),
    floors.gated_linear_attention,
    "bthkp",
  ),
  "delta_rule": Op(
    _delta,
    lambda impl, *args: delta_rule.delta_rule(*args, impl=impl)[0],
    delta_rule.IMPLS,
    (dict(b=2, t=1024, h=4, k=64, p=64),),
    (dict(b=8, t=2048, h=16, k=128, p=128),),
    floors.delta_rule,
    "bthkp",
  ),
  "lti": Op(
    _system,
    lambda impl, *args: lti.lti(*args, impl=impl)[0],
    lti.IMPLS,
    (dict(b=4, t=4096, e=64, n=32),),
    (dict(b=8, t=4096, e=512, n=32),),
    floors.lti,
    "bte",
  ),
  "long_conv": Op(
    lambda normal, b, t, e: (normal(b, t, e), normal(e, t, dtype="float32") / t),
    lambda impl, *args: long_conv.long_conv(*args, impl=impl),
    # the definition multiplies every pair of tokens
    {name: form for name, form in long_conv.IMPLS.items() if name != "reference"},
    tuple(dict(b=4, t=t, e=64) for t in (1024, 4096, 16384)),
    (dict(b=8, t=4096, e=512),),
    floors.lti,
    "bte",
  ),
  "short_conv": Op(
    lambda normal, b, t, e, w: (normal(b, t, e), normal(w, e), normal(b, w - 1, e)),
    lambda impl, *args: short_conv.short_conv(*args, impl=impl)[0],
    short_conv.IMPLS,
    (dict(b=4, t=1024, e=512, w=4),),
    (dict(b=8, t=2048, e=4096, w=4),),
    floors.short_conv,
    "bte",
  ),
  "attention": Op(
    _attended,
    lambda impl, *args: attention.attention(*args, impl=impl),
    attention.IMPLS,
    (dict(b=4, t=1024, h=4, k=64),),
    (dict(b=4, t=4096, h=16, k=128),),
    floors.attention,
    "bthk",
    plain=lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
  ),
}
