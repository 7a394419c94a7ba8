"""The primitives that are timed against their floors: how their arguments are drawn, sizes, and what runs on them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels import (
  attention,
  cauchy,
  conv_step,
  dispatch,
  experts,
  long_conv,
  lstm,
  lti,
  max_scan,
  neural_memory,
  roesser,
  selective_step,
  short_conv,
  ssd_step,
)
from scripts.benchmarks import floors, ops
from ssm.lti import diagonal


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


def _without_reference(impls: dispatch.Impls) -> dispatch.Impls:
  return {name: form for name, form in impls.items() if name != "reference"}


def _lstm(normal, b, t, e):
  return normal(b, t, 4 * e), normal(e, 4 * e) / e**0.5, normal(b, e), normal(b, e)


def _taught(normal, b, t, h, k, p):
  """Draws keys of length one, small rates, and a memory of one matrix."""
  gate = lambda: jax.nn.log_sigmoid(normal(b, t, h) + 3)
  tokens = normal(b, t, h, k), MADE["k"](normal(b, t, h, k)), normal(b, t, h, p), 0.1 * jax.nn.sigmoid(normal(b, t, h))
  return *tokens, gate(), gate(), normal(b, h, k, p, dtype="float32")


def _teach(impl, *args):
  *tokens, M = args
  memory = neural_memory.Memory((M,), (M,), (jnp.zeros_like(M),), jnp.zeros(len(M), jnp.int32))
  return neural_memory.neural_memory(*tokens, (M[0],), memory, chunk=16, impl=impl)[0]


def _poles(normal, b, t, e, k, n):
  """Returns weights, poles left of the imaginary axis, and the points of S4's kernel on it."""
  angles = jnp.linspace(0, jnp.pi / 2, t, dtype=jnp.float32)
  v = jax.lax.complex(normal(e, k, n, dtype="float32"), normal(e, k, n, dtype="float32"))
  a = jax.lax.complex(jnp.full((e, n), -0.5), jnp.pi * jnp.broadcast_to(jnp.arange(float(n)), (e, n)))
  return v, a, 2 * jnp.sin(angles), jnp.cos(angles)


def _places(normal, b, t, e, n):
  """Draws a system whose states are means of two terms, and an array as long as the image's side."""
  draw = lambda many: normal(many, e, n, dtype="float32")
  return jax.nn.sigmoid(draw(4)), draw(2), draw(2), jnp.zeros(t)


def _image(impl, A, B, C, side):
  return roesser.roesser(A, B, C, side.size, side.size, inside=0.5, impl=impl)


def _chosen(normal, b, t, d, f, e, k):
  """Draws experts for every token; their numbers are floats, since gradients are taken of all arguments."""
  chosen = jax.lax.top_k(normal(b, t, e, dtype="float32"), k)[1].astype(jnp.float32)
  matrices = normal(e, d, f) / d**0.5, normal(e, f, d) / f**0.5, normal(e, d, f) / d**0.5
  return normal(b, t, d), chosen, jnp.full((b, t, k), 1 / k, jnp.float32), *matrices


def _mixed(impl, x, chosen, *rest):
  return experts.experts(x, chosen.astype(jnp.int32), *rest, activation=jax.nn.silu, impl=impl)


def _selective_token(normal, b, t, e, n, g):
  x, z, B, C = normal(b, e), normal(b, e), normal(b, g, n), normal(b, g, n)
  dt = MADE["dt_before_softplus"](normal(b, e))
  return x, dt, MADE["A"](normal(e, n, dtype="float32")), B, C, None, z, normal(b, e, n, dtype="float32")


def _ssd_token(normal, b, t, h, g, k, p, w):
  m, wide = h * p + 2 * g * k, dict(dtype="float32")
  token = normal(b, m), normal(b, h * p), MADE["dt"](normal(b, h, **wide)), normal(b, w - 1, m)
  layer = normal(w, m, **wide), -jnp.ones(h), normal(h, 1, **wide)
  return *token, normal(b, h, k, p, **wide), *layer


def _ssd_step(impl, x, z, dt, taps, S, kernel, A, D):
  return ssd_step.ssd_step(
    x, z, dt, taps, S, kernel=kernel, bias=None, A=A, D=D, scale=None, norm="none", impl=impl
  )  # fmt: skip


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
    "bten",
  ),
  "long_conv": Op(
    lambda normal, b, t, e: (normal(b, t, e), normal(e, t, dtype="float32") / t),
    lambda impl, *args: long_conv.long_conv(*args, impl=impl),
    # the definition multiplies every pair of tokens
    _without_reference(long_conv.IMPLS),
    tuple(dict(b=4, t=t, e=64) for t in (1024, 4096, 16384)),
    (dict(b=8, t=4096, e=512),),
    # the products depend on the form, FFT or blocks, so the floor has none
    floors.short_conv,
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
  "lstm": Op(
    _lstm,
    lambda impl, *args: lstm.lstm(*args, impl=impl)[0],
    lstm.IMPLS,
    (dict(b=4, t=512, e=256), dict(b=32, t=256, e=256)),
    (dict(b=32, t=1024, e=1024),),
    floors.lstm,
    "bte",
  ),
  "max_scan": Op(
    lambda normal, b, t, n: (jax.nn.log_sigmoid(normal(b, t, n)), normal(b, t, n), normal(b, n)),
    lambda impl, *args: max_scan.max_scan(*args, impl=impl),
    max_scan.IMPLS,
    (dict(b=4, t=1024, n=512),),
    (dict(b=8, t=2048, n=2560),),
    floors.max_scan,
    "btn",
  ),
  "neural_memory": Op(
    _taught,
    _teach,
    neural_memory.IMPLS,
    (dict(b=2, t=512, h=4, k=32, p=32),),
    (dict(b=8, t=2048, h=16, k=64, p=64),),
    floors.neural_memory,
    "bthkp",
  ),
  "cauchy": Op(
    _poles,
    lambda impl, *args: cauchy.cauchy(*args, impl=impl),
    cauchy.IMPLS,
    (dict(b=1, t=1024, e=64, k=4, n=32),),
    (dict(b=1, t=2048, e=512, k=4, n=32),),
    floors.cauchy,
    "eknt",
  ),
  "roesser": Op(
    _places,
    _image,
    # the definition is one long program, place after place
    _without_reference(roesser.IMPLS),
    (dict(b=1, t=32, e=64, n=16),),
    (dict(b=1, t=64, e=512, n=16),),
    floors.roesser,
    "ent",
  ),
  "experts": Op(
    _chosen,
    _mixed,
    # the definition copies the matrices for every token
    _without_reference(experts.IMPLS),
    (dict(b=2, t=512, d=128, f=256, e=8, k=2),),
    (dict(b=4, t=2048, d=2048, f=4096, e=8, k=2),),
    floors.experts,
    "btdfek",
  ),
  "conv_step": Op(
    lambda normal, b, t, e, w: (normal(b, e), normal(b, w - 1, e), normal(w, e, dtype="float32")),
    lambda impl, *args: conv_step.conv_step(*args, impl=impl),
    conv_step.IMPLS,
    (dict(b=16, t=1, e=512, w=4),),
    (dict(b=64, t=1, e=5120, w=4),),
    floors.conv_step,
    "bew",
  ),
  "selective_step": Op(
    _selective_token,
    lambda impl, *args: selective_step.selective_step(*args, softplus=True, impl=impl),
    selective_step.IMPLS,
    (dict(b=1, t=1, e=512, n=16, g=1), dict(b=16, t=1, e=512, n=16, g=1)),
    (dict(b=64, t=1, e=5120, n=16, g=1),),
    floors.selective_step,
    "beng",
  ),
  "ssd_step": Op(
    _ssd_token,
    _ssd_step,
    ssd_step.IMPLS,
    (dict(b=1, t=1, h=8, g=1, k=64, p=64, w=4), dict(b=16, t=1, h=8, g=1, k=64, p=64, w=4)),
    (dict(b=64, t=1, h=80, g=1, k=128, p=64, w=4),),
    floors.ssd_step,
    "bhgkpw",
  ),
}
