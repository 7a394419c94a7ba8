"""Luna, arXiv:2106.01540, sec. 3."""

import numpy as np

from tests.oracles.linformer import weights_of
from tests.oracles.parts import dense


def attention(q, k, v, heads):
  out = np.zeros((len(q), v.shape[1]))
  for part in np.split(np.arange(q.shape[1]), heads):
    out[:, part] = weights_of(q[:, part] @ k[:, part].T / len(part) ** 0.5) @ v[:, part]
  return out


def run(p, x, *, heads, tied=False):
  second = lambda name, z: z @ p[f"{name}_kernel"] + p.get(f"{name}_bias", 0.0)
  pk = dense(p, "pk_proj", x)
  pv = pk if tied else dense(p, "pv_proj", x)
  packed = attention(dense(p, "pq_proj", p["P"]), pk, pv, heads)
  k = second("k", packed)
  v = k if tied else second("v", packed)
  return dense(p, "out_proj", attention(dense(p, "q_proj", x), k, v, heads))
