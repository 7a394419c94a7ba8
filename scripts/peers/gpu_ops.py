"""Kernels of others for GPUs, on the arguments of `scripts/benchmarks/kernels.py`, each in a process of its own.

Never run by us so far: their arguments are taken from their sources (fla-core 0.6.0, mamba-ssm of July 2026,
jax-linear-attention 0.1.0). What one of them refuses shows as a line in the table.
"""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.rg_lru.gates import gate
from scripts.benchmarks.case import Missing, Timed, compiled, gradients
from scripts.peers.own_process import own_process

DISTRIBUTIONS = ("jax-linear-attention", "fla-core", "mamba-ssm", "cudnn")
TORCH = ("fla-core", "mamba-ssm")


class Peer(NamedTuple):
  """A function of another package, and how it takes an op's arguments: `call(fn, *prepare(*arguments))`.

  `prepare` lays the arguments out as the package wants them, which is not timed.
  """

  distribution: str
  module: str
  name: str
  prepare: Callable[..., tuple]
  call: Callable[..., Any]


def made(peers: tuple[str, ...], op: str, sizes: dict[str, int], dtype: str, mode: str) -> Iterator[tuple]:
  """Yields label and constructor of the functions that the packages named in `peers` have for an op."""
  for number, peer in enumerate(PEERS.get(op, ())):
    if peer.distribution in peers:
      kwargs = {"op_name": op, "number": number, "sizes": sizes, "dtype": dtype, "mode": mode}
      yield f"{peer.distribution} {peer.name}", functools.partial(own_process, "scripts.peers.gpu_ops:timed", **kwargs)


def timed(*, op_name: str, number: int, sizes: dict[str, int], dtype: str, mode: str) -> Timed:
  """Prepares one of PEERS on random arguments; "forward+backward" adds the cotangents of all of them.

  Raises:
    Missing: it is not installed, there is no GPU, or it refuses the arguments.
  """
  from scripts.benchmarks.kernels import drawn

  peer = PEERS[op_name][number]
  try:
    fn = getattr(importlib.import_module(peer.module), peer.name)
  except Exception as e:  # packages for GPUs raise all kinds of things where there is none
    raise Missing(f"not installed, or not usable here ({type(e).__name__}: {e})") from e
  draw = lambda: peer.prepare(*drawn(op_name, tuple(sizes.items()), dtype))
  try:
    return (_with_torch if peer.distribution in TORCH else _with_jax)(peer, fn, draw, mode)
  except (ValueError, AssertionError, NotImplementedError, RuntimeError) as e:
    raise Missing(f"it does not run this: {e}") from e


def _with_jax(peer: Peer, fn: Callable, draw: Callable[[], tuple], mode: str) -> Timed:
  if jax.default_backend() != "gpu":
    raise Missing(f"it needs a GPU, not a {jax.default_backend()}")
  run = lambda *args: peer.call(fn, *args)
  return (compiled if mode == "forward" else gradients)(run, *draw())


def _with_torch(peer: Peer, fn: Callable, draw: Callable[[], tuple], mode: str) -> Timed:
  torch = importlib.import_module("torch")
  if not torch.cuda.is_available():
    raise Missing("it needs a GPU that torch can use")

  def tensor(z):
    # numpy has no bfloat16 that torch knows
    exact = torch.from_numpy(np.array(z, np.float32)).cuda()
    return exact.to(torch.bfloat16) if z.dtype == jnp.bfloat16 else exact

  with jax.default_device(jax.local_devices(backend="cpu")[0]):  # the GPU's memory is torch's
    leaves = [tensor(z).requires_grad_(mode != "forward") for z in draw()]
  first = lambda y: y[0] if isinstance(y, tuple) else y
  weights = torch.randn_like(first(peer.call(fn, *leaves)).detach())

  def once():
    if mode == "forward":
      with torch.inference_mode():
        return peer.call(fn, *leaves)
    return torch.autograd.grad(first(peer.call(fn, *leaves)), leaves, weights, allow_unused=True)

  def many(calls):
    for _ in range(calls):
      once()
    torch.cuda.synchronize()

  torch.cuda.reset_peak_memory_stats()
  before = torch.cuda.memory_allocated()
  many(1)
  return Timed(lambda: many(1), (torch.cuda.max_memory_allocated() - before) / 2**20, many=many)


def _one_group(x, dt, A, B, C, h, *skip_and_gate):
  """Takes B and C as the same for all channels."""
  return C[:, :, 0], B[:, :, 0], x, dt, A, h, *skip_and_gate


def _last_tokens(x, dt, A, B, C, h, *skip_and_gate):
  """Puts tokens last, as mamba-ssm's scan has them, and leaves out the state before the first."""
  del h
  by_channel = lambda m: m.swapaxes(1, 2) if m.ndim == 3 else m
  around = map(by_channel, skip_and_gate)
  return by_channel(x), by_channel(dt), A, B.transpose(0, 2, 3, 1), C.transpose(0, 2, 3, 1), *around


def _mamba_ssm(fn, x, dt, A, B, C, D=None, z=None):
  return fn(x, dt, A, B, C, D, z, delta_softplus=D is not None)


def _mamba1(fn, C, B, x, dt, A, h, D=None, z=None):
  return fn(C, B, x, dt, A, d=D, z=z, dt_softplus=D is not None, initial_state=h)


def _steps(q, k, v, log_a, S):
  """Makes Mamba-2's arguments with A = -1: steps are the decays' negative logarithms, and weigh the inputs, too."""
  del S
  return v, -log_a, -jnp.ones(v.shape[2]), k, q


def _all_heads(q, k, v, log_a, S):
  """Repeats queries and keys for each head: fla has no groups here."""
  q, k = (jnp.repeat(z, v.shape[2] // z.shape[2], axis=2) for z in (q, k))
  return q, k, v, log_a, S


def _strengths(q, stored, v, w, S, log_a):
  """Takes keys and strengths apart; what is stored is their product."""
  del w
  beta = jnp.linalg.norm(stored.astype(jnp.float32), axis=-1)
  return q, (stored / beta[..., None]).astype(q.dtype), v, log_a[..., 0], beta.astype(q.dtype), S


def _same(*args):
  return args


def _hgrn(u, r, i, a_param, h):
  """Makes the input and the log decay of fla's HGRN, whose recurrence has no gates."""
  a, inflow = gate(u, r, i, a_param, None)
  return inflow.astype(u.dtype), jnp.log(a).astype(u.dtype), h


_scanned = lambda fn, x, g, h: fn(x, g, initial_state=h)
_stated = lambda fn, q, k, v, g, S: fn(q, k, v, g, scale=1.0, initial_state=S)
_gated_delta = lambda fn, q, k, v, g, beta, S: fn(q, k, v, g, beta, scale=1.0, initial_state=S)
_FLA, _JLA = "fla-core", "jax-linear-attention"
_SELECTIVE = (
  Peer("mamba-ssm", "mamba_ssm.ops.selective_scan_interface", "selective_scan_fn", _last_tokens, _mamba_ssm),
  Peer(_JLA, "jla.ops.mosaic_gpu.mamba1", "mamba1", _one_group, _mamba1),
)
PEERS: dict[str, tuple[Peer, ...]] = {
  "selective_scan": _SELECTIVE,
  "gated_selective_scan": _SELECTIVE,
  "linear_scan": tuple(
    Peer(_FLA, "fla.ops.hgrn", name, lambda a, x, h: (x, jnp.log(a), h), _scanned)
    for name in ("fused_recurrent_hgrn", "chunk_hgrn")
  ),
  "rg_lru": tuple(Peer(_FLA, "fla.ops.hgrn", name, _hgrn, _scanned) for name in ("fused_recurrent_hgrn", "chunk_hgrn")),
  "ssd": (
    Peer(
      "mamba-ssm",
      "mamba_ssm.ops.triton.ssd_combined",
      "mamba_chunk_scan_combined",
      _steps,
      lambda fn, *z: fn(*z, chunk_size=256),
    ),
    Peer(_FLA, "fla.ops.simple_gla", "chunk_simple_gla", _all_heads, _stated),
    Peer(_JLA, "jla.ops.mosaic_gpu.scalar_gate", "simple_gla", _same, _stated),
  ),
  "gated_linear_attention": (
    Peer(_FLA, "fla.ops.gla", "chunk_gla", _same, _stated),
    Peer(_JLA, "jla.ops.mosaic_gpu.gla", "gla", _same, _stated),
  ),
  "delta_rule": (
    Peer(_FLA, "fla.ops.gated_delta_rule", "chunk_gated_delta_rule", _strengths, _gated_delta),
    Peer(_JLA, "jla.ops.mosaic_gpu.gated_delta_rule", "gated_delta_rule", _strengths, _gated_delta),
  ),
  "attention": (
    Peer(
      "cudnn",
      "jax.nn",
      "dot_product_attention",
      _same,
      lambda fn, q, k, v: fn(q, k, v, is_causal=True, implementation="cudnn"),
    ),
  ),
}
