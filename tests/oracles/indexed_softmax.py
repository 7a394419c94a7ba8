"""Attention to chosen blocks, as in `models/qwen4_exp` of transformers: what each query sees, written out."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid
from tests.oracles.softmax import angles, turn


def run(p, x, *, heads, kv_heads, index_heads, pool, chosen, theta=1e4, entries=0, eps=1e-6):
  rates = angles(entries, theta, None)
  turned = lambda vectors, place: turn(vectors, place, rates, "half") if entries else vectors
  apart = lambda name, u, count: dense(p, name, u).reshape(count, -1)
  normed = lambda vectors, name: np.array([rms(z, p[f"{name}_norm/scale"], eps) for z in vectors])
  y, keys, values, marks = [], [], [], []
  for t, u in enumerate(x):
    q = turned(normed(apart("q_proj", u, heads), "q"), t)
    keys.append(turned(normed(apart("k_proj", u, kv_heads), "k"), t))
    values.append(apart("v_proj", u, kv_heads))
    marks.append(dense(p, "index_k", u))
    gate = sigmoid(apart("gate_proj", u, heads))
    index_q = turned(normed(apart("index_q", u, index_heads), "index_q"), t)
    scores = []
    for start in range(0, t + 2 - pool, pool):
      mean = rms(np.mean(marks[start : start + pool], axis=0), p["index_k_scale"], eps)
      scores.append(np.maximum(index_q @ turned(mean[None], start)[0], 0).sum() / np.sqrt(len(mean)))
    best = np.argsort(-np.array(scores), kind="stable")[: chosen // pool]
    seen = [token for number in sorted(best) for token in range(number * pool, (number + 1) * pool)]
    seen += range((t + 1) // pool * pool, t + 1)
    out = []
    for i in range(heads):
      group = i * kv_heads // heads
      weights = np.exp([q[i] @ keys[s][group] / np.sqrt(len(q[i])) for s in seen])
      out.append(gate[i] * sum(w * values[s][group] for w, s in zip(weights / weights.sum(), seen)))
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return np.array(y)
