"""Multi-head latent attention, arXiv:2405.04434, eqs. (9) to (19), with keys and values of every head written out."""

import numpy as np

from tests.oracles.matrix_state import rms
from tests.oracles.parts import dense, sigmoid
from tests.oracles.softmax import angles, turn


def run(p, x, *, heads, head_size, theta=1e4, layout="interleaved", position="rope"):
  k_up = p["k_up"].reshape(len(p["k_up"]), heads, -1)
  v_up = p["v_up"].reshape(len(p["v_up"]), heads, -1)
  keys, values, y = [], [], []
  for place, u in enumerate(x):
    rotated = lambda z, place=place: (
      z if position == "none" else turn(z, place, angles(z.shape[1], theta, None), layout)
    )
    if "q_down/kernel" in p:
      q = dense(p, "q_up", rms(dense(p, "q_down", u), p["q_norm/scale"], 1e-6))
    else:
      q = dense(p, "q_proj", u)
    q = q.reshape(heads, -1)
    q = np.concatenate([q[:, :head_size], rotated(q[:, head_size:])], axis=1)
    c = rms(dense(p, "c_proj", u), p["c_norm/scale"], 1e-6)
    shared = rotated(dense(p, "r_proj", u)[None])[0]
    keys.append([np.concatenate([c @ k_up[:, i], shared]) for i in range(heads)])
    values.append([c @ v_up[:, i] for i in range(heads)])
    out = []
    for i in range(heads):
      weights = np.exp([q[i] @ k[i] / np.sqrt(len(q[i])) for k in keys])
      out.append(sum(w * v[i] for w, v in zip(weights / weights.sum(), values)))
    if "gate_proj/kernel" in p:
      # one for each head, or for each entry
      out = np.array(out) * sigmoid(dense(p, "gate_proj", u)).reshape(heads, -1)
    y.append(dense(p, "out_proj", np.concatenate(out)))
  return y
