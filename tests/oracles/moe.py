"""A mixture of experts, each token by itself: Fedus et al. 2022, arXiv:2101.03961, sec. 2.1.

The sigmoid router with a bias and groups: DeepSeek-AI 2024, arXiv:2412.19437, eqs. (12) to (16).
"""

import numpy as np

from tests.oracles.parts import dense, gelu, sigmoid, silu

ACTIVATIONS = {"silu": silu, "relu2": lambda x: np.maximum(x, 0) ** 2}


def choose(wish, top_k, groups, top_groups):
  parts = np.split(np.arange(len(wish)), groups)
  worth = [np.sort(wish[part])[-2:].sum() for part in parts]
  allowed = np.concatenate([parts[i] for i in np.argsort(worth)[::-1][:top_groups]])
  return allowed[np.argsort(wish[allowed])[::-1][:top_k]]


def carried(p, u, before):
  """Zaya's router, `models/zaya` of transformers: a vector to which the layer before's is added, and a perceptron."""
  r = dense(p, "router_mlp/down_proj", u) + p["router_mlp/carry_scale"] * before
  z = r / np.sqrt(np.mean(r**2) + 1e-5) * p["router_mlp/norm/scale"]
  z = gelu(dense(p, "router_mlp/second", gelu(dense(p, "router_mlp/first", z))))
  return dense(p, "router_mlp/out_proj", z)


def run(
  p,
  x,
  *,
  top_k=2,
  score="softmax",
  groups=1,
  top_groups=1,
  renormalize=False,
  eps=0.0,
  scale=1.0,
  activation="silu",
  router=None,
):
  f = ACTIVATIONS[activation]

  def perceptron(u, into, out, gate=None):
    return (f(u @ into) if gate is None else f(u @ gate) * (u @ into)) @ out

  y = []
  for t, u in enumerate(x):
    logits = u @ p["router"] if router is None else carried(p, u, router[t])
    scores = sigmoid(logits) if score == "sigmoid" else np.exp(logits) / np.exp(logits).sum()
    chosen = choose(scores + p.get("selection_bias", 0.0), top_k, groups, top_groups)
    weights = scale * scores[chosen] / (scores[chosen].sum() + eps if renormalize else 1)
    z = dense(p, "latent_in", u) if "latent_in/kernel" in p else u
    total = np.zeros_like(z)
    for expert, weight in zip(chosen, weights):
      if expert == len(p["in_proj"]):
        continue  # the one that does nothing
      gate = p["gate_proj"][expert] if "gate_proj" in p else None
      total += weight * perceptron(z, p["in_proj"][expert], p["out_proj"][expert], gate)
    y.append(dense(p, "latent_out", total) if "latent_out/kernel" in p else total)
    if "shared_expert/in_proj/kernel" in p:
      kernels = (p.get(f"shared_expert/{name}_proj/kernel") for name in ("in", "out", "gate"))
      shared = perceptron(u, *kernels)
      gate = sigmoid(dense(p, "shared_gate_proj", u)) if "shared_gate_proj/kernel" in p else 1
      y[-1] = y[-1] + shared * gate
  return y
