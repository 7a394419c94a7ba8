"""Linear attention in plain torch, as flash-linear-attention (`fla-core`) has it for CPUs and its own tests."""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any

from scripts.benchmarks.case import Case, Missing, Timed
from scripts.peers.own_process import own_process

# tokens before heads, or after them
TOKENS_FIRST, HEADS_FIRST = "bthk", "bhtk"


def cases(peer: str, group: str, size: tuple[int, int, int, int]) -> list[Case]:
  """Returns the cases of one of OPS at a size (batch, length, heads, head size), forward and forward+backward."""
  make = lambda mode: functools.partial(own_process, "scripts.peers.fla_ops:op", peer=peer, mode=mode, size=size)
  return [Case(f"{group}, {mode}", f"fla {peer}", make(mode)) for mode in ("forward", "forward+backward")]


def op(*, peer: str, mode: str, size: tuple[int, int, int, int]) -> Timed:
  """Prepares the operation on random tokens; "forward+backward" adds the cotangents of all its arguments."""
  layout, decays, module, call = OPS[peer]
  try:
    torch = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    fn = getattr(importlib.import_module(f"fla.ops.{module}.naive"), peer)
  except (ImportError, AttributeError) as e:
    raise Missing(f"not installed here ({e})") from e
  b, t, h, k = size
  rows = (b, t, h) if layout == TOKENS_FIRST else (b, h, t)
  normal = lambda *last: torch.randn(*rows, *last)
  q, key = (torch.nn.functional.normalize(normal(k), dim=-1) for _ in range(2))
  arguments = {"q": q, "k": key, "v": normal(k), "beta": torch.sigmoid(normal())}
  if decays is not None:
    arguments["g"] = torch.nn.functional.logsigmoid(normal(*decays(k))) / 16
  weights = normal(k)

  def forward():
    with torch.inference_mode():
      return call(fn, arguments)

  def backward():
    leaves = {name: z.clone().requires_grad_() for name, z in arguments.items()}
    call(fn, leaves).backward(weights)
    return leaves

  return Timed(forward if mode == "forward" else backward)


def _first(y: Any) -> Any:
  return y[0] if isinstance(y, tuple) else y


def _delta(fn: Callable, z: dict[str, Any]) -> Any:
  return _first(fn(z["q"], z["k"], z["v"], z["beta"]))


def _gated(fn: Callable, z: dict[str, Any]) -> Any:
  return _first(fn(z["q"], z["k"], z["v"], z["g"]))


def _gated_delta(fn: Callable, z: dict[str, Any]) -> Any:
  return _first(fn(z["q"], z["k"], z["v"], g=z["g"], beta=z["beta"]))


def _low_rank(fn: Callable, z: dict[str, Any]) -> Any:
  removed = z["beta"][..., None] * z["k"]
  return _first(fn(z["q"], z["k"], z["v"], -z["k"], removed, z["g"]))


_BY_HEAD, _BY_CHANNEL = (lambda k: ()), (lambda k: (k,))
# layout, the decays' last axes, module, and how the function takes its arguments
OPS: dict[str, tuple[str, Callable | None, str, Callable]] = {
  "naive_chunk_simple_gla": (TOKENS_FIRST, _BY_HEAD, "simple_gla", _gated),
  "naive_parallel_simple_gla": (TOKENS_FIRST, _BY_HEAD, "simple_gla", _gated),
  "naive_recurrent_gla": (TOKENS_FIRST, _BY_CHANNEL, "gla", _gated),
  "delta_rule_chunkwise": (HEADS_FIRST, None, "delta_rule", _delta),
  "naive_chunk_gated_delta_rule": (TOKENS_FIRST, _BY_HEAD, "gated_delta_rule", _gated_delta),
  "naive_chunk_kda": (TOKENS_FIRST, _BY_CHANNEL, "kda", _gated_delta),
  "dplr_chunkwise": (HEADS_FIRST, _BY_CHANNEL, "generalized_delta_rule.dplr", _low_rank),
}
