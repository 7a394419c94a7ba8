"""Titans' memory as context, arXiv:2501.00663, eqs. (21)-(25), read after each token instead of each segment."""

import numpy as np

from tests.oracles.parts import dense
from tests.oracles.softmax import angles, turn
from tests.oracles.titans import Memory
from tests.oracles.titans_mag import gated, part


def run(p, x, *, heads, segment, position, memory):
  d = x.shape[1]
  attention = part(p, "attention")
  persistent = attention.get("P", np.zeros((0, d)))
  rates = angles(d // heads, 1e4, None)

  def project(name, u, place):
    vectors = dense(attention, f"{name}_proj", u).reshape(heads, -1)
    return turn(vectors, place, rates, "half") if position == "rope" and name != "v" else vectors

  store, y = Memory(part(p, "titans"), d, **memory), []
  for place, u in enumerate(x):
    slot = place % segment
    if slot == 0:
      past = store.weights()
      context = [(token, i - len(persistent)) for i, token in enumerate(persistent)]
    h = store.recall(past, dense(p, "q_proj", u))
    context += [(h, slot), (u, segment + slot)]
    q = project("q", u, segment + slot)
    k, v = (np.stack([project(name, *one) for one in context], axis=1) for name in "kv")
    out = []
    for head in range(heads):
      weights = np.exp(k[head] @ q[head] / np.sqrt(d // heads))
      out.append(weights @ v[head] / weights.sum())
    answer = dense(attention, "out_proj", np.concatenate(out))
    y.append(gated(p, answer, store.learn(answer)))
  return y
