"""H3, arXiv:2212.14052, alg. 1: both state spaces as recurrences, the shift by moving its states on by one place."""

import numpy as np

from tests.oracles.parts import dense, discretize


def run(p, x, *, head_dim=1, disc="bilinear"):
  d, N = p["shift_B"].shape
  A = -np.exp(p["ssm/A_log"]) + 1j * p["ssm/A_im"]
  B, C = (p[f"ssm/{name}_re"] + 1j * p[f"ssm/{name}_im"] for name in "BC")
  shift = np.zeros((d, N))
  h, y = np.zeros((len(A), head_dim, head_dim, A.shape[1]), complex), []
  for u in x:
    q, k, v = (dense(p, f"{name}_proj", u) for name in "qkv")
    shift = np.concatenate([np.zeros((d, 1)), shift[:, :-1]], axis=1) + p["shift_B"] * k[:, None]
    k = np.sum(p["shift_C"] * shift, axis=1) + p["shift_D"] * k
    out = np.zeros(d)
    for head in range(len(A)):
      decay, gain = discretize(disc, np.exp(p["ssm/log_dt"][head]), A[head])
      for i in range(head_dim):
        for j in range(head_dim):
          kv = k[head * head_dim + i] * v[head * head_dim + j]
          h[head, i, j] = decay * h[head, i, j] + gain * B[head] * kv
          read = 2 * np.sum(C[head] * h[head, i, j]).real + p["ssm/D"][head] * kv
          out[head * head_dim + j] += q[head * head_dim + i] * read
    y.append(dense(p, "out_proj", out))
  return y
