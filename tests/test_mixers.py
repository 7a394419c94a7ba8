"""Every mixer obeys the contract: one row in SMALL and one in COUNT is all a new mixer adds here.

In the default suite one row for each primitive runs over a long sequence; the others do in the slow one, which also
repeats every comparison in float64. The checks are in tests/contract/checks.py.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids import mixer as mixer_lib
from tests import sources
from tests.contract.case import Case, D
from tests.contract.checks import CHECKS, IN_FLOAT64

# Arguments beside the width for a small instance of every mixer, by its name. What follows the name tells rows apart: a
# mixer has a second one where arguments change its kind of state or what it reads.
SMALL: dict[str, dict[str, Any]] = {
  "based": dict(heads=2, key_size=3),
  "delta_net": dict(heads=2),
  "dss": dict(state=3),
  "dss, softmax": dict(state=3, kernel="softmax"),
  "event_ssm, dt": dict(state=8, blocks=2),
  "gated_conv": {},
  "gated_delta_net": dict(heads=2),
  "gated_mlp": {},
  "gla": dict(heads=2, gate_rank=3),
  "gru": {},
  "gss": dict(inner=3, outer=12, state=4),
  "h3": dict(state=4),
  "h3, heads": dict(state=4, head_dim=2),
  "hgrn2": dict(head_size=4),
  "hyena": dict(filter_width=6, filter_depth=1),
  "hyena, heads": dict(heads=2, outer_mixing=True, filter_width=6, filter_depth=1),
  "hyena, third order": dict(order=3, filter_width=4, features=5, taps=2),
  "kda": dict(heads=2),
  "lightning": dict(heads=2, head_size=3),
  "liquid_s4": dict(state=6, degree=3),
  "liquid_s4, kb": dict(state=4, degree=3, kernel="kb"),
  "liquid_s4, official": dict(state=4, degree=3, form="official"),
  "local": dict(heads=2, window=5),
  "lru": dict(state=6),
  "lssl": dict(state=4),
  "lstm": {},
  "mamba": dict(state=4, dt_rank=2),
  "mamba, complex": dict(state=4, dt_rank=2, spectrum="complex", disc="zoh", groups=2, norms="learned"),
  "mamba2": dict(state=4, head_size=4, groups=2, dt_most=0.1),
  "mamba2, beside an MLP": dict(state=3, head_size=4, ssm_width=8),
  "mamba3": dict(state=4, head_size=4, groups=2),
  "mamba3, MIMO": dict(state=4, head_size=4, rank=2, out_norm=True),
  "mega": dict(state=2, keys=4, chunk=5),
  "mega, both ways": dict(state=2, keys=3, chunk=4, position="simple", bidirectional=True),
  "mega, laplace": dict(state=2, keys=4, chunk=5, weights="laplace"),
  "mega, no chunks": dict(state=2, keys=4, inner=6, chunk=None),
  "mega, simple": dict(state=2, keys=3, chunk=4, position="simple"),
  "min_gru": dict(expand=2),
  "mla": dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5),
  "mlp": dict(expand=2),
  "mlstm": dict(expand=1, heads=2, block_size=2),
  "retnet": dict(heads=2),
  "rglru": dict(inner=12, heads=3),
  "rnn": {},
  "rwkv4": {},
  "rwkv6": dict(head_size=4, mix_rank=2, decay_rank=2),
  "rwkv7": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40),
  "rwkv7, v_first": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40, layer=1, depth=3),
  "rwkv_channel": {},
  "rwkv_channel, with receptance": dict(version=4, inner=12),
  "s4": dict(state=6),
  "s4d": dict(state=6),
  "s4nd": dict(state=4, rank=2),
  "s4nd, DPLR": dict(state=4, structure="dplr"),
  "s4nd, video": dict(state=2, dim=3),
  "s5": dict(state=8, blocks=2),
  "s5, both ways": dict(state=6, bidirectional=True),
  "s5, dt": dict(state=8),
  "sgconv": dict(taps=4),
  "slstm": dict(heads=2),
  "softmax": dict(heads=2, position="rope"),
  "softmax, alibi": dict(heads=4, kv_heads=2, head_size=3, position="alibi", softcap=2.0, gate=True, qk_norm="all"),
  "softmax, full": dict(heads=2, mask="full", position="rope"),
  "softmax, window": dict(heads=4, kv_heads=2, window=5, position="rope", bias="all"),
  "softmax, xpos": dict(heads=2, head_size=8, position="xpos", rotary=0.5, qk_norm="head", bias="qkv"),
  "ssm2d": dict(state=2, numbers="complex"),
  # wrappers and stacks are mixers too; the hybrid has a remainder after its repeated groups
  "bidirectional": dict(mixer=dict(name="mamba", state=4, dt_rank=2)),
  "stack": dict(depth=3, pattern="m", mixers={"m": dict(name="mamba", state=4)}, norm="layer", norm_position="post"),
  "stack, hybrid": dict(
    depth=7,
    pattern="sa-",
    mixers={"s": dict(name="s5", state=4), "a": dict(name="softmax", heads=2), "-": dict(name="mlp", expand=2)},
    dropout=0.5,
    remat="full",
  ),
  "image_scan": dict(mixer=dict(name="mamba", state=4, dt_rank=2), orders=("column", "snake_reversed"), merge="mean"),
  "shell": dict(mixer=dict(name="s5", state=4)),
  "shell, h3": dict(mixer=dict(name="s5", state=4), kind="h3", taps=3),
  "shell, no gate": dict(mixer=dict(name="softmax", heads=2), kind="none"),
}
# Where those are that have no mixer file.
PATHS = {"shell": "hybrids.shells.Shell", "stack": "hybrids.stack.Stack"}
# Rows for the newer Python.
SMOKE = ("mamba", "softmax")
# Side inputs "b t …" of the rows that are tested with some.
GAPS = {"dt": lambda b, t: 0.1 + np.random.default_rng(0).exponential(size=(b, t))}
SIDE = {"event_ssm, dt": GAPS, "s5, both ways": GAPS, "s5, dt": GAPS}
FIRST = {"v_first": lambda b, t: np.random.default_rng(0).standard_normal((b, t, D))}
SIDE = {"event_ssm, dt": GAPS, "rwkv7, v_first": FIRST, "s5, dt": GAPS}


def count(name: str, **kwargs: Any) -> int:
  return COUNT[name](D, **kwargs)


def count_mamba(d, state=16, expand=2, taps=4, dt_rank=1, groups=1, norms="none", **_):
  """In, out; convolution with bias; A (complex: two parts, half as many), D; delta, B and C; dt with bias; norms."""
  e, selected = expand * d, dt_rank + 2 * groups * state
  total = 2 * d * e + e * d + e * (taps + 1) + e * (state + 1) + e * selected + (dt_rank + 1) * e
  return total + (norms == "learned") * selected


def count_delta_net(d, heads, expand_k=1, expand_v=1, taps=4, **_):
  """Queries, keys, values and out; convolution; a step for each head; the norm."""
  k, v = int(expand_k * d), int(expand_v * d)
  return 2 * d * k + 2 * d * v + taps * (2 * k + v) + d * heads + v // heads


def count_gated_delta_net(d, heads, taps=4):
  """Queries and keys of 3/4 of the width; values, gate and out twice that; convolution; decay and step; A, dt; norm."""
  k = 3 * d // 4 // heads * heads
  return 2 * d * k + 3 * d * 2 * k + taps * 4 * k + 2 * d * heads + 2 * heads + 2 * k // heads


def count_kda(d, heads, taps=4):
  """Queries, keys, values and out; convolution; step; two maps of low rank; A, dt; norm."""
  rank = d // heads
  return 4 * d * d + taps * 3 * d + d * heads + 4 * d * rank + heads + d + rank


def count_rglru(d, inner, heads):
  """Three maps with bias; convolution with bias; two gates in blocks, with bias; a."""
  return 3 * d * inner + 2 * inner + d + 5 * inner + 2 * (inner**2 // heads + inner) + inner


def count_s5(d, state, blocks=1, bidirectional=False):
  """lam, dt; B, C for each direction; D; the gate with bias."""
  return state + state // 2 + (2 + bidirectional) * state * d + d + d * (d + 1)


def count_mamba2(d, state, head_size, groups=1, ssm_width=None, **_):
  """In, out; convolution with bias; A, D and dt of each head; the norm."""
  inner, e = 2 * d, ssm_width or 2 * d
  heads, mixed = e // head_size, e + 2 * groups * state
  return d * (2 * (inner - e) + e + mixed + heads) + inner * d + mixed * (4 + 1) + 3 * heads + e


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


def count_mamba3(d, state, head_size, groups=1, rank=1, out_norm=False):
  """In (half of the rows turn in pairs), out; dt and D; norms and biases of B and C; three vectors a rank; a norm."""
  e, heads = 2 * d, 2 * d // head_size
  features = 2 * e + 2 * state * groups * rank + 3 * heads + state // 4
  mimo = 3 * rank * e if rank > 1 else 0
  return d * features + e * d + 2 * heads + 2 * state * (1 + rank * heads) + mimo + out_norm * e


def count_mlstm(d, expand, heads, block_size, taps=4):
  """In (twice) and out; convolution with bias; three maps in blocks; two gates with bias; norm; skip."""
  e = expand * d
  return 3 * d * e + (taps + 1) * e + 3 * block_size * e + 2 * heads * (3 * e + 1) + 2 * e


def count_softmax(d, heads, kv_heads=None, bias=False, **_):
  """Queries and out, keys and values."""
  kv = d * (kv_heads or heads) // heads
  return 2 * d * d + 2 * d * kv + bias * (2 * d + 2 * kv)
def count_mla(d, heads, rank, q_rank, head_size, rope_size, value_size):
  """Queries through a norm; latents and theirs; the shared key; keys, values and out."""
  queries = d * q_rank + q_rank + q_rank * heads * (head_size + rope_size)
  return queries + (d + 1) * rank + d * rope_size + rank * heads * (head_size + value_size) + heads * value_size * d


def count_softmax(d, heads, kv_heads=None, head_size=None, gate=False, qk_norm="none", bias="none", **_):
  """Queries, out and gate, keys and values; biases; a norm of queries and one of keys."""
  size = head_size or d // heads
  inner, kv = heads * size, (kv_heads or heads) * size
  biases = {"none": 0, "qkv": inner + 2 * kv, "out": d, "all": inner + 2 * kv + d}[bias]
  return d * ((2 + gate) * inner + 2 * kv) + biases + {"none": 0, "head": 2 * size, "all": inner + kv}[qk_norm]


def count_shell(d, mixer, kind="mamba", taps=4):
  """What is inside, and out; with a gate also in, and a convolution with bias."""
  parts, e = {"none": (0, d), "h3": (3, d), "mamba": (2, 2 * d)}[kind]
  inside = COUNT[mixer["name"]](e, **{key: value for key, value in mixer.items() if key != "name"})
  return inside + e * d + parts * d * e + bool(parts) * (taps + 1) * e


def count_stack(d, depth, pattern, mixers, norm="rms", **_):
  """A norm with one or two vectors, and a mixer, for each letter."""
  letters = (mixers[pattern[layer % len(pattern)]] for layer in range(depth))
  return sum(count(**letter) + (2 if norm == "layer" else 1) * d for letter in letters)


# Parameters from the equations: a product of sides for each matrix, a length for each vector.
COUNT = {
  # queries and keys; values and out
  "based": lambda d, heads, key_size: 2 * d * heads * key_size + 2 * d * d,
  "delta_net": count_delta_net,
  # lam, C; D and two dt; the map to 2d with bias
  "dss": lambda d, state, kernel="exp": 2 * state + 2 * d * state + 3 * d + 2 * d * (d + 1),
  "event_ssm": count_s5,
  # in and out, convolution
  "gated_conv": lambda d, taps=3: 4 * d * d + taps * d,
  "gated_delta_net": count_gated_delta_net,
  "gated_mlp": lambda d, inner=24: 3 * d * inner,
  # queries and keys, values, gate and out; the decay's map of low rank with bias; the norm
  "gla": lambda d, heads, gate_rank: d * d + 3 * d * d + gate_rank * (d + d // 2) + d // 2 + d // heads,
  # two square maps and a bias for each of r, z and n
  "gru": lambda d: 3 * (2 * d * d + d),
  # gate and out, in and out of the state space; lam, C; D
  "gss": lambda d, inner, outer, state: (2 * outer + inner) * d + inner * outer + 2 * state * (inner + 1) + inner,
  # queries, keys, values and out, with biases; B, C and D of the shift; the diagonal's A, B and C, D and dt
  "h3": lambda d, state, head_dim=1: 4 * d * (d + 1) + d * (2 * state + 1) + d // head_dim * (3 * state + 2),
  # queries, decays, values and out; lower bounds; the norm
  "hgrn2": lambda d, head_size: 4 * d * d + 2 * d,
  "hyena": count_hyena,
  "kda": count_kda,
  # queries, keys, values, gate and out; the norm
  "lightning": lambda d, heads, head_size: 5 * d * heads * head_size + heads * head_size,
  # those of S4D: the products are weighed by its B and C
  "liquid_s4": lambda d, state, degree, **_: COUNT["s4d"](d, state),
  "local": lambda d, heads, **_: count_softmax(d, heads, kv_heads=1, bias="out"),
  # lam, gamma; B, C; D; the two maps with bias
  "lru": lambda d, state: 3 * state + 4 * state * d + d + 2 * d * (d + 1),
  # A and B, shared; C; D and dt; the map with bias
  "lssl": lambda d, state: state * (state + 1) + d * state + 2 * d + d * (d + 1),
  # as in a GRU, for i, f, g and o
  "lstm": lambda d: 4 * (2 * d * d + d),
  "mamba": count_mamba,
  "mamba2": count_mamba2,
  "mamba3": count_mamba3,
  "mega": count_mega,
  # gate and candidate with bias, and out if the state is wider
  "min_gru": lambda d, expand=1: 2 * expand * d * (d + 1) + (expand > 1) * d * (expand * d + 1),
  "mla": count_mla,
  "mlp": lambda d, expand: 2 * d * expand * d,
  "mlstm": count_mlstm,
  # queries and keys; values, gate and out
  "retnet": lambda d, heads, expand_v=2: 2 * d * d + 3 * expand_v * d * d,
  "rglru": count_rglru,
  "rnn": lambda d: 2 * d * d + d,
  # four maps; three mixtures; decays and bonuses
  "rwkv4": lambda d: 4 * d * d + 3 * d + 2 * d,
  # five maps; six mixtures and a map of low rank for five of them; one with bias for decays; bonuses; norm with bias
  "rwkv6": lambda d, mix_rank, decay_rank, **_: (
    5 * d * d + 6 * d + 10 * d * mix_rank + 2 * d * decay_rank + d + d + 2 * d
  ),
  # four maps; six mixtures, k_k, k_a, r_k, the norm with bias; maps of low rank, three with bias
  "rwkv7": lambda d, w_rank, a_rank, v_rank, g_rank, **_: (
    4 * d * d + 6 * d + 3 * d + 2 * d + 2 * d * (w_rank + a_rank + v_rank + g_rank) + 3 * d
  ),
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
  "bidirectional": lambda d, mixer, merge="sum": 2 * count(**mixer) + (merge == "concat") * 2 * d * d,
  "stack": count_stack,
  "image_scan": lambda d, mixer, orders, merge: len(orders) * count(**mixer),
  "shell": count_shell,
}


def build(row: str) -> Any:
  name = row.split(",")[0]
  return mixer_lib.build(PATHS.get(name, name), width=D, **SMALL[row])


def primitives(row: str) -> frozenset[str]:
  """The kernels that a row's mixer and the mixers within it call."""

  def names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
      yield from [value["name"]] if "name" in value else []
      for inner in value.values():
        yield from names(inner)

  files = sources.mixer_files()
  used = [sources.primitives(files[name]) for name in (row.split(",")[0], *names(SMALL[row])) if name in files]
  return frozenset().union(*used)


def make_case(row: str, dtype: Any) -> Case:
  exact = not primitives(row) & {"lti", "long_conv"}
  name = row.split(",")[0]
  total = count(name, **SMALL[row])
  return Case(build(row), exact=exact, side=SIDE.get(row), dtype=dtype, count=total)


# One at a time, as its compiled programs are large; the tests of a row follow each other on one worker.
case = functools.lru_cache(maxsize=1)(make_case)


def state_of(row: str) -> str:
  """STATE; 'fixed' for what cannot be built, so that its tests are there to fail."""
  try:
    return build(row).STATE
  except Exception:
    return "fixed"


def rows_of_long_check() -> set[str]:
  """The first row for each primitive."""
  first: dict[str, str] = {}
  for row in SMALL:
    for primitive in primitives(row):
      first.setdefault(primitive, row)
  return set(first.values())


def parameters(checks: Mapping[str, Any]) -> list:
  long, found = rows_of_long_check(), []
  for row in SMALL:
    for name, (_, states) in checks.items():
      slow = name == "finite_over_a_long_sequence" and row not in long
      marks = [pytest.mark.xdist_group(row), *[pytest.mark.slow] * slow, *[pytest.mark.smoke] * (row in SMOKE)]
      if state_of(row) in states:
        found.append(pytest.param(row, name, id=f"{row}-{name}", marks=marks))
  return found


def test_every_mixer_has_a_row():
  files, rows = set(sources.mixer_files()), {row.split(",")[0] for row in SMALL} - set(PATHS)
  assert files - rows == set(), "these mixer files have no row in SMALL"
  assert rows - files == set(), "these rows of SMALL have no mixer file"
  assert files == set(mixer_lib.available()), "build knows other mixers than there are files"
  assert rows | set(PATHS) == set(COUNT), "SMALL and COUNT differ"


@pytest.mark.parametrize("name", sorted(sources.mixer_files()))
def test_every_mixer_builds_with_its_width_alone(name):
  """At a width that no published default was made for; a wrapper also needs what it wraps."""
  needed = {"mixer": dict(name="mlp")} if name in ("bidirectional", "image_scan") else {}
  mixer = mixer_lib.build(name, width=48, **needed)
  shape = jax.eval_shape(mixer.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 5, 48), jnp.float32))
  assert jax.tree.leaves(shape), "no parameters"


@pytest.mark.parametrize("row, check", parameters(CHECKS))
def test_mixer(row, check):
  CHECKS[check][0](case(row, jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("row, check", parameters({name: CHECKS[name] for name in IN_FLOAT64}))
def test_mixer_in_float64(row, check):
  with jax.enable_x64(True):
    CHECKS[check][0](case(row, jnp.float64))
