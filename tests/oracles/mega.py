"""Mega, arXiv:2209.10655, eqs. (2), (3) and (6) to (13), without the residual: u (c - x)."""

import math

import numpy as np

from tests.oracles.parts import dense, sigmoid, silu


def distance_bias(p, position, i, j):
  if position == "simple":
    # one number for each distance, on both sides if there are two
    ways = p["alpha"].ndim - 2
    return p["bias"][i - j + ways * (len(p["bias"]) // 2)]
  # in complex numbers, R_t turns pair m by t 10000^(-m / half)
  b_q, b_k = (half[: len(half) // 2] + 1j * half[len(half) // 2 :] for half in p["bias"])
  frequencies = 10000.0 ** (-np.arange(len(b_q)) / len(b_q))
  return np.sum(b_q * np.exp(1j * i * frequencies) * np.conj(b_k * np.exp(1j * j * frequencies))).real


def averages(p, x, way):
  """gamma . h / sqrt(n) at every token of a document."""
  alpha, delta, beta, gamma = (p[name][way] for name in ("alpha", "delta", "beta", "gamma"))
  h, found = np.zeros(alpha.shape), []
  for token in x:
    h = (1 - sigmoid(alpha) * sigmoid(delta)) * h + sigmoid(alpha) * beta * token[:, None]
    found.append(np.sum(gamma * h, axis=1) / np.sqrt(alpha.shape[1]))
  return np.array(found)


def attended(weights, scores, values):
  """Of scores without their scale, what a query gets."""
  products, biases = scores
  if weights == "softmax":
    powers = np.exp(products[0] * products[1] + biases)
    return powers / powers.sum() @ values
  s = products[0] / len(values) + biases
  if weights == "relu2":
    return np.maximum(s, 0) ** 2 @ values
  mean, deviation = math.sqrt(1 / 2), math.sqrt(1 / (4 * math.pi))
  return np.array([(1 + math.erf((one - mean) / (deviation * math.sqrt(2)))) / 2 for one in s]) @ values


def run(p, x, *, chunk, position="rotary", weights="softmax", bidirectional=False):
  width, keys, inner = x.shape[1], p["qk_scale"].shape[1], p["v_proj/kernel"].shape[1]
  y = []
  average = averages(p, x, ...) if not bidirectional else averages(p, x, 0) + averages(p, x[::-1], 1)[::-1]
  u, z, r, c = np.split(dense(p, "m_proj", silu(average + p["omega"] * x)), np.cumsum([width, keys, inner]), axis=1)
  q, k = (silu(z) * p["qk_scale"][i] + p["qk_shift"][i] for i in (0, 1))
  v = silu(dense(p, "v_proj", x))
  for i in range(len(x)):
    start = i - i % chunk
    seen = slice(start, min(start + chunk, len(x)) if bidirectional else i + 1)
    biases = np.array([distance_bias(p, position, i - start, j) for j in range(len(k[seen]))])
    got = attended(weights, ((k[seen] @ q[i], keys**-0.5), biases), v[seen])
    candidate = silu(c[i] + dense(p, "h_proj", silu(r[i]) * got))
    y.append(sigmoid(u[i]) * (candidate - x[i]))
  return y
