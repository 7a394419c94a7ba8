"""How many parameters each mixer has, from its equations: a product of sides a matrix, a length a vector."""

from typing import Any

from tests import mixers
from tests.contract.case import D


def count(name: str, **kwargs: Any) -> int:
  return COUNT[name](D, **kwargs)


def count_mla(d, heads, rank, q_rank, head_size, rope_size, value_size):
  """Queries through a norm; latents and theirs; the shared key; keys, values and out."""
  queries = d * q_rank + q_rank + q_rank * heads * (head_size + rope_size)
  return queries + (d + 1) * rank + d * rope_size + rank * heads * (head_size + value_size) + heads * value_size * d


def count_softmax(d, heads, kv_heads=None, head_size=None, qk_norm="none", bias="none", persistent=0, **_):
  """Queries and out, keys and values; biases; a norm of queries and one of keys; persistent tokens."""
  size = head_size or d // heads
  inner, kv = heads * size, (kv_heads or heads) * size
  biases = {"none": 0, "qkv": inner + 2 * kv, "out": d, "all": inner + 2 * kv + d}[bias]
  norms = {"none": 0, "head": 2 * size, "all": inner + kv}[qk_norm]
  return d * (2 * inner + 2 * kv + persistent) + biases + norms


def count_four_maps(d, bias=False, **_):
  """Queries, keys, values and out."""
  return 4 * d * (d + bias)


def count_titans(d, heads=1, layers=2, inner=None, momentum=True, decay=True, taps=4, **_):
  """Queries, keys, values and out; convolution; a rate, a momentum and a decay with bias; the initial memory; norm."""
  size = d // heads
  sides = [size, *[inner or 4 * size] * (layers - 1), size]
  memory = heads * sum(i * o for i, o in zip(sides, sides[1:])) if layers > 1 else 0
  return 4 * d * d + taps * 3 * d + (d + 1) * heads * (1 + momentum + decay) + memory + size


def count_with_memory(d, heads, persistent, memory, **_):
  """Four maps of attention, persistent tokens; a memory."""
  return count_four_maps(d) + persistent * d + count_titans(d, **memory)


def count_shell(d, mixer, kind="mamba", taps=4):
  """What is inside, and out; with a gate also in, and a convolution with bias."""
  parts, e = {"none": (0, d), "h3": (3, d), "mamba": (2, 2 * d)}[kind]
  inside = COUNT[mixer["name"]](e, **{key: value for key, value in mixer.items() if key != "name"})
  return inside + e * d + parts * d * e + bool(parts) * (taps + 1) * e


def count_stack(d, depth, pattern, letters, branch, **_):
  """A norm (LayerNorm has two vectors) and a mixer for each letter; a last norm if they stand before the mixers."""
  norm = 2 * d if branch.get("norm", {}).get("name") == "layer" else d
  last = norm if branch.get("norm_position", "pre") == "pre" else 0
  return sum(count(**letters[pattern[layer % len(pattern)]]) + norm for layer in range(depth)) + last


COUNT: dict[str, Any] = {
  "gated_mlp": lambda d, inner=24: 3 * d * inner,
  "local": lambda d, heads, **_: count_softmax(d, heads, kv_heads=1, bias="out"),
  "mlp": lambda d, expand: 2 * d * expand * d,
  "titans": count_titans,
  # and two norms; for MAC the map of what asks the memory
  "titans_mac": lambda d, **kwargs: count_with_memory(d, **kwargs) + 2 * d + d * d,
  "titans_mag": lambda d, **kwargs: count_with_memory(d, **kwargs) + 2 * d,
  "titans_mal": count_with_memory,
  "bidirectional": lambda d, mixer, merge="sum": 2 * count(**mixer) + (merge == "concat") * 2 * d * d,
  "stack": count_stack,
  "image_scan": lambda d, mixer, orders, merge: len(orders) * count(**mixer),
  "shell": count_shell,
}


# what each mixer's own file says


COUNT |= {name: file.count for name, file in mixers.files().items()}
