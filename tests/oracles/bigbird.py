"""BigBird, arXiv:2007.14062, sec. 2 and app. D: the blocks that each token sees, then softmax attention over them."""

import numpy as np

from tests.oracles.linformer import weights_of
from tests.oracles.parts import dense


def blocks_of(i, count, reach, random, priority):
  """What block i of `count` sees."""
  if i in (0, count - 1):
    return set(range(count))
  seen = {0, count - 1} | {j for j in range(count) if abs(i - j) <= reach}
  rest = sorted(set(range(count)) - seen, key=lambda j: -priority[i, j])
  return seen | set(rest[:random])


def run(p, x, *, heads, block, window=3, random=3):
  q, k, v = (dense(p, f"qkv/{name}", x) for name in ("q_proj", "k_proj", "v_proj"))
  n, out = len(x), np.zeros_like(q)
  count = -(-n // block)
  for head, part in enumerate(np.split(np.arange(x.shape[1]), heads)):
    for t in range(n):
      blocks = blocks_of(t // block, count, window // 2, random, p["priority"][head])
      seen = [s for s in range(n) if s // block in blocks]
      out[t, part] = weights_of(q[t, part] @ k[seen][:, part].T / len(part) ** 0.5) @ v[seen][:, part]
  return dense(p, "qkv/out_proj", out)
