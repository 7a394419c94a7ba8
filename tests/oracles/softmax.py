"""Attention, arXiv:1706.03762, sec. 3.2, query by query; rotary positions, arXiv:2104.09864, as complex numbers."""

import math

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid


def angles(n, theta, scaling):
  """Of each pair, per position: as it is, interpolated (2306.15595), NTK-aware or YaRN (2309.00071)."""
  plain = [theta ** (-2 * i / n) for i in range(n // 2)]
  rule = (scaling or {}).get("rule")
  if rule is None:
    return np.array(plain)
  s = scaling["factor"]
  if rule == "linear":
    return np.array(plain) / s
  if rule == "ntk":
    return np.array([(theta * s ** (n / (n - 2))) ** (-2 * i / n) for i in range(n // 2)])
  assert rule == "yarn"
  edge = lambda turns: n * math.log(scaling["trained"] / (turns * 2 * math.pi)) / (2 * math.log(theta))
  low, high = max(math.floor(edge(32)), 0), min(math.ceil(edge(1)), n - 1)
  kept = [1 - min(max((i - low) / (high - low), 0), 1) for i in range(n // 2)]
  return np.array([kept[i] * w + (1 - kept[i]) * w / s for i, w in enumerate(plain)])


def turn(vectors, place, rates, layout, amplitude=1):
  """The first pairs of each row as complex numbers, by `place` times their rates, and grown; the rest stays."""
  n = 2 * len(rates)
  first, second = (slice(0, n // 2), slice(n // 2, n)) if layout == "half" else (slice(0, n, 2), slice(1, n, 2))
  out = vectors.copy()
  z = (vectors[:, first] + 1j * vectors[:, second]) * np.exp(1j * place * rates)
  out[:, first], out[:, second] = amplitude * z.real, amplitude * z.imag
  return out


def fade(vectors, place, n, layout):
  """xPos, arXiv:2212.10554: zeta^(place / 512), as published for queries and with -place for keys."""
  zeta = [(2 * i + 0.4 * n) / (1.4 * n) for i in range(n // 2)]
  scale = np.ones(vectors.shape[1])
  scale[:n] = zeta + zeta if layout == "half" else [z for z in zeta for _ in (0, 1)]
  return vectors * scale ** (place / 512)


def slope(head, heads):
  """ALiBi, arXiv:2108.12409, sec. 3; the first heads as for the power of 2 below."""
  power = 2 ** math.floor(math.log2(heads))
  return 2 ** (-8 * (head + 1) / power) if head < power else 2 ** (-8 * (2 * (head - power) + 1) / (2 * power))


def run(
  p,
  x,
  *,
  heads,
  kv_heads=None,
  size=None,
  mask="causal",
  position="none",
  theta=1e4,
  window=None,
  layout="half",
  turned=None,
  scaling=None,
  softcap=None,
  qk_norm="none",
  persistent=0,
  scale=None,
):
  groups = kv_heads or heads
  size = size or x.shape[-1] // heads
  n = turned or size

  def project(name, u, place, count):
    flat = dense(p, f"{name}_proj", u)
    if qk_norm == "all":
      flat = rms(flat, p[f"{name}_norm/scale"], 1e-6)
    vectors = flat.reshape(count, size)
    if qk_norm == "head":
      vectors = np.stack([rms(vector, p[f"{name}_norm/scale"], 1e-6) for vector in vectors])
    if position in ("rope", "xpos"):
      vectors = turn(vectors, place, angles(n, theta, scaling), layout, growth)
    if position == "xpos":
      vectors = fade(vectors, place if name == "q" else -place, n, layout)
    return vectors

  growth = 0.1 * math.log(scaling["factor"]) + 1 if (scaling or {}).get("rule") == "yarn" else 1
  # learned tokens in front of every document
  line = [*(p["P"] if persistent else ()), *x]
  k = [project("k", u, i - persistent, groups) for i, u in enumerate(line)]
  v = [dense(p, "v_proj", u).reshape(groups, size) for u in line]
  y = []
  for time, u in enumerate(x):
    q = project("q", u, time, heads)
    last = len(x) if mask == "full" else time + 1
    seen = [*range(persistent), *range(persistent + (max(0, time - window + 1) if window else 0), persistent + last)]
    out = []
    for head in range(heads):
      group = head * groups // heads
      scores = np.array([q[head] @ k[s][group] * (scale or size**-0.5) for s in seen])
      if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
      if position == "alibi":
        scores -= slope(head, heads) * np.abs(time + persistent - np.array(seen))
      weights = np.exp(scores)
      out.append(sum(w * v[s][group] for w, s in zip(weights / weights.sum(), seen)))
    y.append(read_out(p, out, u))
  return y


def read_out(p, heads, u):
  """W_o of what the heads found, gated by u where there are gates."""
  joined = np.concatenate(heads)
  if "gate_proj/kernel" in p:
    # one for each entry, or for each head
    gates = sigmoid(dense(p, "gate_proj", u))
    joined = joined * np.repeat(gates, len(joined) // len(gates))
  return dense(p, "out_proj", joined)
