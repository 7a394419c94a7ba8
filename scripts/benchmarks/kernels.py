"""The primitives in every implementation that the device can run, those by name included, with floors and peers.

On an accelerator at the sizes the kernels are written for, on a CPU at small ones. With lengths given, rows of the
batch become fewer as they become longer, so that the number of tokens stays, down to one row.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels import attention, dispatch, linear_scan, long_conv, lti, short_conv
from layers import project
from scripts.benchmarks import floors, ops
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


# What becomes of normal numbers, by argument: decays around 0.93 a token, gates half open, keys of length one.
MADE: dict[str, Callable[[jax.Array], jax.Array]] = {
  "a": lambda z: jax.nn.sigmoid(z + 3),
  "a_complex": lambda z: 0.95 * z / jnp.abs(z),
  "a_param": lambda z: z.astype(jnp.float32) - 4,
  "dt": lambda z: jax.nn.softplus(z - 3),
  "dt_before_softplus": lambda z: z - 3,
  "A": lambda z: -jnp.broadcast_to(jnp.arange(1.0, z.shape[-1] + 1), z.shape),
  "D": lambda z: z.astype(jnp.float32),
  "log_a": lambda z: jax.nn.log_sigmoid(z) / 16,
  **dict.fromkeys(("q", "k", "w"), lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True)),
}


def arrays_over_time(name: str, normal: Callable[..., jax.Array], **sizes: int) -> tuple[jax.Array, ...]:
  """Returns arguments of one of `ops.OPS`; what a delta rule writes is what it finds, with a strength below one."""
  op, arrays = ops.OPS[name], {}
  for key, z in op.shapes(sizes, "float32").items():
    own = {"dtype": z.dtype} if key == op.state or "complex" in key else {}
    plain = normal(*z.shape, **own)
    arrays[key] = MADE[key](plain) if key in MADE else plain
  if "w" in arrays:
    arrays["k"] = arrays["w"] * jax.nn.sigmoid(normal(*arrays["w"].shape[:-1], 1))
  return tuple(arrays.values())


def _over_time(name: str, *settings: Any) -> Op:
  op, draw = ops.OPS[name], functools.partial(arrays_over_time, name)
  return Op(draw, lambda impl, *args: op.run(*args, impl=impl)[0], op.impls, *settings)


def _large(*names: str, b: int = 8) -> tuple[dict[str, int], ...]:
  return tuple(dict(b=b, t=2048, **ops.SIZES[name][1]) for name in names)


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
  "selective_scan": _over_time(
    "selective_scan",
    (dict(b=4, t=1024, e=512, n=16, g=1), dict(b=16, t=256, e=256, n=16, g=1)),
    _large("Mamba 370M's scan"),
    floors.selective_scan,
    "bteng",
  ),
  "gated_selective_scan": _over_time(
    "selective_scan, gated",
    (dict(b=4, t=1024, e=512, n=16, g=1),),
    _large("Mamba 370M"),
    floors.gated_selective_scan,
    "bteng",
  ),
  "linear_scan": _over_time(
    "linear_scan", (dict(b=4, t=1024, n=512),), _large("RG-LRU's scan"), floors.linear_scan, "btn"
  ),
  "rg_lru": _over_time("rg_lru", (dict(b=4, t=1024, e=512),), _large("RG-LRU"), floors.rg_lru, "bte"),
  "ssd": _over_time(
    "ssd",
    (dict(b=4, t=1024, h=8, g=1, k=64, p=64),),
    _large("Mamba-2 130M", "Mamba-2 780M", "Mamba-2 2.7B", b=16),
    floors.ssd,
    "bthgkp",
  ),
  "gated_linear_attention": _over_time(
    "gated_linear_attention",
    (dict(b=2, t=1024, h=4, k=64, p=64),),
    _large("GLA, many heads"),
    floors.gated_linear_attention,
    "bthkp",
  ),
  "delta_rule": _over_time(
    "delta_rule, gated",
    (dict(b=2, t=1024, h=4, k=64, p=64),),
    _large("Gated DeltaNet, square heads"),
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
