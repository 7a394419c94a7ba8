"""How many parameters each mixer has, from its equations: a product of sides a matrix, a length a vector."""

from typing import Any

from tests import mixers
from tests.contract.case import D


def count(name: str, **kwargs: Any) -> int:
  return COUNT[name](D, **kwargs)


def count_s5(d, state, blocks=1, bidirectional=False):
  """lam, dt; B, C for each direction; D; the gate with bias."""
  return state + state // 2 + (2 + bidirectional) * state * d + d + d * (d + 1)


def count_hyena(d, order=2, filter_width=64, filter_depth=2, features=3, taps=3, heads=1, **_):
  """In and out with biases, short convolution; filters: first, inner and last map, frequencies; b."""
  inner, f, filtered = (order + 1) * d, filter_width, (order - 1) * d // heads
  filters = (features + 1) * f + filter_depth * (f + 1) * f + f * filtered + f
  return (d + 1) * (inner + d) + inner * (taps + 1) + filters + filtered


def count_mega(d, state, keys, chunk, inner=None, position="rotary", bidirectional=False, **_):
  """The averages; u, c, z and r; values; out; scales, shifts and positions of queries and keys."""
  e, ways = inner or 2 * d, 1 + bidirectional
  biased = (d + 1) * (2 * d + keys + e) + (d + 1) * e + (e + 1) * d
  distances = ways * chunk - bidirectional if chunk else 0
  return ways * 4 * d * state + d + biased + 4 * keys + (2 * keys if position == "rotary" else distances)


def count_s4nd(d, state, rank=1, dim=2, structure="diagonal"):
  """Along each axis A, B and perhaps P in every channel, C for each rank both ways, dt; D; the map to 2d with bias."""
  return dim * (d * state * (2 + (structure == "dplr") + 2 * rank) + d) + d + 2 * d * (d + 1)


def count_mla(d, heads, rank, q_rank, head_size, rope_size, value_size):
  """Queries through a norm; latents and theirs; the shared key; keys, values and out."""
  queries = d * q_rank + q_rank + q_rank * heads * (head_size + rope_size)
  return queries + (d + 1) * rank + d * rope_size + rank * heads * (head_size + value_size) + heads * value_size * d


def count_softmax(d, heads, kv_heads=None, head_size=None, gate=False, qk_norm="none", bias="none", persistent=0, **_):
  """Queries, out and gate, keys and values; biases; a norm of queries and one of keys; persistent tokens."""
  size = head_size or d // heads
  inner, kv = heads * size, (kv_heads or heads) * size
  biases = {"none": 0, "qkv": inner + 2 * kv, "out": d, "all": inner + 2 * kv + d}[bias]
  norms = {"none": 0, "head": 2 * size, "all": inner + kv}[qk_norm]
  return d * ((2 + gate) * inner + 2 * kv + persistent) + biases + norms


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


def count_stack(d, depth, pattern, letters, branch):
  """A LayerNorm and a mixer for each letter; where norms stand after the sums, there is no last one."""
  assert (branch["norm"]["name"], branch["norm_position"]) == ("layer", "post")
  return sum(count(**letters[pattern[layer % len(pattern)]]) + 2 * d for layer in range(depth))


COUNT: dict[str, Any] = {
  "bigbird": count_four_maps,
  # lam, C; D and two dt; the map to 2d with bias
  "dss": lambda d, state, kernel="exp": 2 * state + 2 * d * state + 3 * d + 2 * d * (d + 1),
  "event_ssm": count_s5,
  "fnet": lambda d: 0,
  # in and out, convolution
  "gated_conv": lambda d, taps=3: 4 * d * d + taps * d,
  "gated_mlp": lambda d, inner=24: 3 * d * inner,
  # two square maps and a bias for each of r, z and n
  "gru": lambda d: 3 * (2 * d * d + d),
  # gate and out, in and out of the state space; lam, C; D
  "gss": lambda d, inner, outer, state: (2 * outer + inner) * d + inner * outer + 2 * state * (inner + 1) + inner,
  # queries, keys, values and out, with biases; B, C and D of the shift; the diagonal's A, B and C, D and dt
  "h3": lambda d, state, head_dim=1: 4 * d * (d + 1) + d * (2 * state + 1) + d // head_dim * (3 * state + 2),
  "hyena": count_hyena,
  "linear_transformer": count_four_maps,
  # queries, keys, values and out; E, and perhaps F
  "linformer": lambda d, rank, shared=True, bias=False, **_: count_four_maps(d, bias) + (2 - shared) * 4096 * rank,
  # those of S4D: the products are weighed by its B and C
  "liquid_s4": lambda d, state, degree, **_: COUNT["s4d"](d, state),
  "local": lambda d, heads, **_: count_softmax(d, heads, kv_heads=1, bias="out"),
  # lam, gamma; B, C; D; the two maps with bias
  "lru": lambda d, state: 3 * state + 4 * state * d + d + 2 * d * (d + 1),
  # A and B, shared; C; D and dt; the map with bias
  "lssl": lambda d, state: state * (state + 1) + d * state + 2 * d + d * (d + 1),
  # as in a GRU, for i, f, g and o
  "lstm": lambda d: 4 * (2 * d * d + d),
  # P; four maps of tokens and of P, two of what is packed, out; keys that are values save one of each kind
  "luna": lambda d, packed, tied=False, bias=True, **_: packed * d + (7 - 2 * tied) * d * (d + bias),
  "mega": count_mega,
  # gate and candidate with bias, and out if the state is wider
  "min_gru": lambda d, expand=1: 2 * expand * d * (d + 1) + (expand > 1) * d * (expand * d + 1),
  "mla": count_mla,
  "mlp": lambda d, expand: 2 * d * expand * d,
  # queries, keys, values and out; the convolution
  "nystromformer": lambda d, heads, taps, **_: count_four_maps(d) + taps * heads,
  "performer": count_four_maps,
  # queries, values and out
  "reformer": lambda d, **_: 3 * d * d,
  "rnn": lambda d: 2 * d * d + d,
  # in and out, a mixture; with receptance a map and a mixture more
  "rwkv_channel": lambda d, version=7, inner=32: 2 * d * inner + d + (version < 7) * (d * d + d),
  # lam, P and B in every channel, C; D and dt; the map to 2d with bias
  "s4": lambda d, state: 4 * d * state + 2 * d + 2 * d * (d + 1),
  # A and B in every channel, C; D and dt; the map to 2d with bias
  "s4d": lambda d, state: 3 * d * state + 2 * d + 2 * d * (d + 1),
  "s4nd": count_s4nd,
  "s5": count_s5,
  # kernels at each of 1 + log2(4096 / taps) scales; D; the map to 2d with bias
  "sgconv": lambda d, taps: taps * d * (13 - taps.bit_length() + 1) + d + 2 * d * (d + 1),
  # convolution with bias; four gates of two maps in blocks, with bias; norm
  "slstm": lambda d, heads, taps=4: (taps + 1) * d + 4 * (2 * d * d // heads + d) + d,
  "softmax": count_softmax,
  # A, B and C, in two real numbers each, for every channel, direction and state; D
  "ssm2d": lambda d, state, numbers: 16 * d * 4 * state + d,
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
