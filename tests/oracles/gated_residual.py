"""A gated residual around a perceptron, by token, as in `models/qwen4_exp` of transformers."""

import numpy as np

from tests.oracles.parts import dense, sigmoid, silu


def run(p, x, *, streams, norm_eps=1e-6):
  y = []
  for streams_of_token in x:
    parts = streams_of_token.reshape(streams, -1)
    u = np.concatenate([z / np.sqrt(np.mean(z**2) + norm_eps) for z in parts]) * p["gather/norm/scale"]
    weights = sigmoid(dense(p, "gather/up", silu(dense(p, "gather/down", u) / streams)))
    z = sum((weights * u).reshape(streams, -1)) / streams
    out = dense(p, "inner/out_proj", silu(dense(p, "inner/in_proj", z)))
    write = 2 * sigmoid(dense(p, "gather/write", u) / streams)
    y.append(np.concatenate([stream + w * out for stream, w in zip(parts, write)]))
  return y
