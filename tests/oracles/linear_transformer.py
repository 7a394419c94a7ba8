"""Linear attention, arXiv:2006.16236, as eq. (4) has it: every weight by itself, no state."""

import numpy as np

from tests.oracles.parts import dense


def phi(x):
  return np.where(x > 0, x + 1, np.exp(x))


def run(p, x, *, heads, mask="causal", eps=1e-6):
  q, k, v = (dense(p, f"qkv/{name}", x) for name in ("q_proj", "k_proj", "v_proj"))
  y = []
  for i in range(len(x)):
    seen = len(x) if mask == "full" else i + 1
    out = []
    for part in np.split(np.arange(x.shape[1]), heads):
      weights = [phi(q[i, part]) @ phi(k[j, part]) for j in range(seen)]
      out.append(sum(w * v[j, part] for j, w in enumerate(weights)) / (sum(weights) + eps))
    y.append(dense(p, "qkv/out_proj", np.concatenate(out)))
  return y
