"""Qwen4-Exp: gated residual streams, vectors of n-grams, three delta nets for each attention to chosen blocks, experts.

Source: transformers 5.24, model type qwen4_exp; Cheng et al. 2026, arXiv:2601.07372 (n-grams); Yang, Kautz &
Hatamizadeh 2025, arXiv:2412.06464 (the delta net). No size is published.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from hybrids.recipes.recipe import Recipe, used


def model(
  *,
  width: int,
  pattern: str,
  delta: Mapping[str, Any],
  attention: Mapping[str, Any],
  experts: Mapping[str, Any],
  ngrams: Mapping[str, Any] = FrozenDict(),
  taps: int = 4,
  streams: int = 4,
  rank: int | None = None,
  norm_eps: float = 1e-6,
  tie: bool = False,
) -> dict[str, Any]:
  """Returns the sections of a stack by a pattern of d, delta nets, a, attention, and e, experts.

  Every other letter is a layer that adds vectors of n-grams to the streams, and stands once.

  Args:
    delta, attention, experts: fields of these mixers.
    ngrams: fields of the embedding `ngrams`.
    taps: of the convolutions over vectors of n-grams.
    streams, rank: as in `gated_stack`.
  """
  embed = dict(name="ngrams", use="layers", order=3, size=width) | dict(ngrams)
  letters = {
    "d": dict(name="gated_delta_net", norm_eps=norm_eps) | dict(delta),
    "a": dict(name="indexed_softmax", gate="entry", qk_norm="head", norm_eps=norm_eps) | dict(attention),
    "e": dict(name="moe", shared_gate=True) | dict(experts),
  }
  whole = "".join(letter for letter in pattern if letter not in letters)
  memory = dict(name="engram", streams=streams, size=embed["size"], taps=taps, dilation=embed["order"])
  letters |= {letter: dict(memory, number=number, norm_eps=norm_eps) for number, letter in enumerate(whole)}
  return dict(
    width=width,
    embed=embed | dict(sets=len(whole)) if whole else dict(name="tokens"),
    body=dict(
      name="gated_stack",
      stack=dict(pattern=pattern, depth=len(pattern), letters=used(letters, pattern)),
      whole=whole,
      streams=streams,
      rank=rank,
      norm_eps=norm_eps,
    ),
    head=dict(name="lm", tie=tie),
  )


RECIPES = {
  "qwen4_exp_toy": Recipe(
    model,
    dict(
      width=8,
      pattern="ndeae",
      delta=dict(heads=1, head_size=4, value_heads=2, expand_v=1.0, gate="sigmoid"),
      attention=dict(heads=2, kv_heads=1, head_size=4, index_heads=2, index_size=4, pool=2, chosen=4),
      experts=dict(experts=3, top_k=2, inner=4, shared=4),
      ngrams=dict(heads=2, rows=11, multiple=4),
      streams=2,
      rank=4,
    ),
    vocab=256,
  ),
}
