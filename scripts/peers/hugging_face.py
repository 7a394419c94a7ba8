"""Mamba of `transformers` on torch: a training step, and decoding with its cache.

`use_mambapy` chooses its parallel scan, its fastest setting on CPU.
"""

import os

import numpy as np

from scripts.benchmarks.case import Missing, Timed


def mamba(*, width: int, depth: int, vocab: int):
  """A randomly initialised MambaForCausalLM and the torch module."""
  try:
    import torch
    import transformers
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  torch.set_num_threads(os.cpu_count() or 1)
  config = transformers.MambaConfig(
    vocab_size=vocab, hidden_size=width, num_hidden_layers=depth, state_size=16, use_mambapy=True, pad_token_id=None
  )
  return torch, transformers.MambaForCausalLM(config)


def train_step(*, width: int, depth: int, vocab: int, batch: int, length: int) -> Timed:
  """Loss, gradients and AdamW's update of random tokens."""
  torch, model = mamba(width=width, depth=depth, vocab=vocab)
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  tokens = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, (batch, length)))

  def call():
    optimizer.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    return loss.item()

  return Timed(call, per_call=batch * length, unit="tokens")


def decode(*, width: int, depth: int, vocab: int, context: int, tokens: int) -> Timed:
  """`tokens` greedy steps from the cache of a context of `context` tokens; the prefill is not timed."""
  torch, model = mamba(width=width, depth=depth, vocab=vocab)
  model.eval()
  prompt = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, (1, context)))
  with torch.inference_mode():
    out = model(input_ids=prompt, use_cache=True)

  def call():
    with torch.inference_mode():
      cache, token = out.cache_params, out.logits[:, -1:].argmax(-1)
      for _ in range(tokens):
        step = model(input_ids=token, cache_params=cache, use_cache=True)
        cache, token = step.cache_params, step.logits[:, -1:].argmax(-1)
      return token.item()

  return Timed(call, per_call=tokens, unit="tokens")


def parameters(**sizes) -> int:
  """Number of parameters, tied ones once."""
  return sum(p.numel() for p in mamba(**sizes)[1].parameters())
