"""Reformer, arXiv:2001.04451, sec. 2, with shared queries and keys, as in the authors' code across hashes."""

import numpy as np

from tests.oracles.parts import dense


def one_round(q, v, R, chunk):
  """Answers, and the sums of exponentials."""
  n = len(q)
  turned = q @ R
  hashes = np.argmax(np.concatenate([turned, -turned], axis=1), axis=1)
  order = sorted(range(n), key=lambda t: (hashes[t], t))
  chunks = [order[i : i + chunk] for i in range(0, n, chunk)]
  out, totals = np.zeros_like(v), np.zeros(n)
  for i, members in enumerate(chunks):
    near = members + (chunks[i - 1] if len(chunks) > 1 else [])
    for t in members:
      seen = [s for s in near if s != t] or [t]
      powers = np.array([np.exp(q[t] @ q[s] / np.sqrt(q[s] @ q[s] + 1e-6 * len(q[s]))) for s in seen])
      out[t], totals[t] = powers @ v[seen] / powers.sum(), powers.sum()
  return out, totals


def run(p, x, *, heads, chunk):
  size = x.shape[1] // heads
  rounds = p["R"].shape[2]
  q, v = (dense(p, name, x) for name in ("q_proj", "v_proj"))
  out = np.zeros_like(v)
  for head in range(heads):
    part = slice(head * size, (head + 1) * size)
    found = [one_round(q[:, part], v[:, part], p["R"][head, :, r], chunk) for r in range(rounds)]
    total = sum(totals for _, totals in found)
    out[:, part] = sum(answer * (totals / total)[:, None] for answer, totals in found)
  return dense(p, "out_proj", out)
