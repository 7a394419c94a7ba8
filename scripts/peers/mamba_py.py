"""Mamba of `mambapy` on torch: a training step. Its own language model cannot be imported without CUDA, so the
embedding, which is the output layer too, and the last norm are put around its layers here.
"""

import os

import numpy as np

from scripts.benchmarks.case import Missing, Timed


def train_step(*, width: int, depth: int, vocab: int, batch: int, length: int) -> Timed:
  """Prepares loss, gradients and AdamW's update of random tokens."""
  try:
    import torch
    from mambapy.mamba import Mamba, MambaConfig, RMSNorm
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  torch.set_num_threads(os.cpu_count() or 1)
  embedding, norm = torch.nn.Embedding(vocab, width), RMSNorm(width)
  layers = Mamba(MambaConfig(d_model=width, n_layers=depth, d_state=16))
  optimizer = torch.optim.AdamW([p for m in (embedding, layers, norm) for p in m.parameters()], lr=1e-3)
  tokens = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, (batch, length)))

  def call():
    optimizer.zero_grad()
    logits = norm(layers(embedding(tokens))) @ embedding.weight.T
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, vocab), tokens[:, 1:].reshape(-1))
    loss.backward()
    optimizer.step()
    return loss.item()

  return Timed(call, per_call=batch * length, unit="tokens")
