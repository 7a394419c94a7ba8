"""The primitives in every implementation, at the sizes whose timings are known from elsewhere."""

import functools

import jax
import jax.numpy as jnp

from kernels.attention import attention
from kernels.linear_scan import linear_scan
from kernels.long_conv import long_conv
from kernels.selective_scan import selective_scan
from kernels.short_conv import short_conv
from kernels.ssd import ssd
from layers import project
from scripts.benchmarks.case import Case, pair
from scripts.peers import s5_upstream
from scripts.peers.own_process import own_process


def cases() -> list[Case]:
  """Every primitive that mixers spend their time in."""
  return [
    *s5_recurrence(),
    *selective(batch=4, length=1024, inner=512),
    *selective(batch=16, length=256, inner=256),
    *heads(batch=4, length=1024),
    *convolutions(),
    *softmax(),
  ]


def s5_recurrence() -> list[Case]:
  """B u, scan, Re(C h) as S5 computes it, beside the form upstream S5 uses."""
  sizes = {"batch": 8, "length": 4096, "width": 128, "state": 64}
  args = s5_upstream.arguments(**sizes)
  group = "S5 recurrence, B8 L4096 width 128 64 complex states"

  def ours(impl):
    def run(a_re, a_im, B, C, u):
      parts = jnp.split(project(u, jnp.concatenate([B[0], B[1]], axis=1), u.dtype), 2, axis=-1)
      empty = jnp.zeros((u.shape[0], *a_re.shape), jnp.complex64)
      h, _ = linear_scan(jax.lax.complex(a_re, a_im), jax.lax.complex(*parts), empty, impl=impl)
      return project(jnp.concatenate([h.real, h.imag], axis=-1), jnp.concatenate([C[0], -C[1]]), u.dtype)

    return run

  rows = [("ours (xla)", ours("xla")), ("ours, associative", ours("associative"))]
  cases = [case for name, fn in rows for case in pair(group, name, fn, args)]
  cases += pair(group, "upstream's form, with our settings", s5_upstream.form, args)
  make = functools.partial(own_process, "scripts.peers.s5_upstream:recurrence", **sizes)
  for mode in ("forward", "forward+backward"):
    cases.append(Case(f"{group}, {mode}", "upstream's form", functools.partial(make, mode=mode)))
  return cases


def selective(*, batch: int, length: int, inner: int, state: int = 16) -> list[Case]:
  """Mamba's scan."""
  keys = jax.random.split(jax.random.key(0), 5)
  x = jax.random.normal(keys[0], (batch, length, inner))
  dt = jax.nn.softplus(jax.random.normal(keys[1], x.shape) - 3)
  A = -jnp.broadcast_to(jnp.arange(1.0, state + 1), (inner, state))
  B, C = (jax.random.normal(k, (batch, length, 1, state)) for k in keys[2:4])
  h = jax.random.normal(keys[4], (batch, inner, state))
  group = f"selective scan, B{batch} L{length} D{inner} N{state}"
  names = {"ours (xla)": "xla", "ours, associative": "associative", "reference, autodiff": "reference"}
  args = (x, dt, A, B, C, h)

  def form(impl):
    return lambda *args: selective_scan(*args, impl=impl)[0]

  return [case for name, impl in names.items() for case in pair(group, name, form(impl), args)]


def heads(*, batch: int, length: int, count: int = 8, size: int = 64, state: int = 64) -> list[Case]:
  """Mamba-2's recurrence, with B and C shared by all heads."""
  keys = jax.random.split(jax.random.key(0), 5)
  q, k = (jax.random.normal(key, (batch, length, 1, state)) / state**0.5 for key in keys[:2])
  v = jax.random.normal(keys[2], (batch, length, count, size))
  log_a = -jax.nn.softplus(jax.random.normal(keys[3], (batch, length, count)) - 3)
  S = jax.random.normal(keys[4], (batch, count, state, size))
  group = f"SSD, B{batch} L{length} {count} heads of {size} N{state}"
  names = {"ours (xla)": "xla", "reference, autodiff": "reference"}
  form = lambda impl: lambda *args: ssd(*args, impl=impl)[0]
  return [case for name, impl in names.items() for case in pair(group, name, form(impl), (q, k, v, log_a, S))]


def convolutions() -> list[Case]:
  """Long convolutions at three lengths, and Mamba's short one."""
  rows = []
  for t in (1024, 4096, 16384):
    u, k = jax.random.normal(jax.random.key(0), (4, t, 64)), jax.random.normal(jax.random.key(1), (64, t)) / t
    rows += pair(f"long convolution, B4 H64 L{t}", "ours (xla)", lambda u, k: long_conv(u, k, impl="xla"), (u, k))
  x, taps = jax.random.normal(jax.random.key(0), (4, 1024, 512)), jnp.zeros((4, 3, 512))
  w = jax.random.normal(jax.random.key(1), (4, 512))
  run = lambda x, w: short_conv(x, w, taps, impl="xla")[0]
  return rows + pair("short convolution of 4, B4 L1024 D512", "ours (xla)", run, (x, w))


def softmax() -> list[Case]:
  """Causal attention, beside the one in jax.nn."""
  b, t, h, k = 4, 1024, 4, 64
  q, key, v = (jax.random.normal(x, (b, t, h, k)) for x in jax.random.split(jax.random.key(0), 3))
  position = jnp.broadcast_to(jnp.arange(t), (b, t))

  def ours(q, k, v):
    return attention(q, k, v, q_position=position, k_position=position, impl="xla")

  def plain(q, k, v):
    return jax.nn.dot_product_attention(q, k, v, is_causal=True)

  group = f"causal attention, B{b} L{t}, {h} heads of {k}"
  return pair(group, "ours (xla)", ours, (q, key, v)) + pair(group, "jax.nn alone", plain, (q, key, v))
