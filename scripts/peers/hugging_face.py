"""Models of `transformers` on torch: a training step, reading prompts, and decoding with their caches.

`use_mambapy` chooses Mamba's parallel scan, its fastest setting on CPU.
"""

import os
from typing import Any

import numpy as np

from scripts.benchmarks.case import Missing, Timed

WIDTH, DEPTH, VOCAB = 256, 4, 256
ATTENTION: dict[str, Any] = dict(intermediate_size=2 * WIDTH, num_attention_heads=4, num_key_value_heads=4)
# kind -> the class of its config and fields besides width, depth and vocabulary
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
  "Mamba": ("MambaConfig", dict(state_size=16, use_mambapy=True)),
  "Mamba-2": (
    "Mamba2Config",
    dict(state_size=128, head_dim=64, num_heads=2 * WIDTH // 64, n_groups=1, tie_word_embeddings=True),
  ),
  "Jamba": (
    "JambaConfig",
    ATTENTION
    | dict(attn_layer_period=4, attn_layer_offset=2, num_experts=1, num_experts_per_tok=1, use_mamba_kernels=False),
  ),
  "Llama": ("LlamaConfig", ATTENTION),
  "RWKV-4": ("RwkvConfig", dict(attention_hidden_size=WIDTH, intermediate_size=4 * WIDTH)),
  # half of the inner width is the gate's
  "RecurrentGemma": (
    "RecurrentGemmaConfig",
    dict(intermediate_size=6 * WIDTH, num_attention_heads=4, num_key_value_heads=1, lru_width=WIDTH, head_dim=64),
  ),
}


def language_model(kind: str, *, width: int = WIDTH, depth: int = DEPTH, vocab: int = VOCAB):
  """Builds a randomly initialised model of CONFIGS; returns torch and the module."""
  try:
    import torch
    import transformers
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  torch.set_num_threads(os.cpu_count() or 1)
  name, fields = CONFIGS[kind]
  config = getattr(transformers, name)(
    vocab_size=vocab, hidden_size=width, num_hidden_layers=depth, pad_token_id=None, **fields
  )
  return torch, transformers.AutoModelForCausalLM.from_config(config)


def train_step(*, kind: str, batch: int, length: int) -> Timed:
  """Prepares loss, gradients and AdamW's update of random tokens."""
  torch, model = language_model(kind)
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
  tokens = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, (batch, length)))

  def call():
    optimizer.zero_grad()
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    return loss.item()

  return Timed(call, per_call=batch * length, unit="tokens")


def decode(*, kind: str, batch: int, context: int, tokens: int) -> Timed:
  """Prepares `tokens` greedy steps a row, from caches of `context` made-up tokens where a cache grows."""
  torch, model = language_model(kind)
  model.eval()
  name = "cache_params" if kind.startswith("Mamba") else "past_key_values"
  prompt = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, (batch, 8)))
  with torch.inference_mode():
    first = model(input_ids=prompt, use_cache=True)
    cache = getattr(first, name)
    # layers that attend, with their keys and values
    grown = []
    for layer in getattr(cache, "layers", ()):
      if getattr(layer, "keys", None) is not None:
        b, heads, _, size = layer.keys.shape
        grown.append((layer, torch.randn(b, heads, context, size), torch.randn(b, heads, context, size)))

  def call():
    for layer, keys, values in grown:
      layer.keys, layer.values = keys, values
    with torch.inference_mode():
      token = first.logits[:, -1:].argmax(-1)
      for _ in range(tokens):
        token = model(input_ids=token, use_cache=True, **{name: cache}).logits[:, -1:].argmax(-1)
      return token.sum().item()

  if kind in ("Jamba", "Llama") and not grown:
    raise Missing("this version keeps its cache in another form than layers of keys and values")
  return Timed(call, per_call=tokens * batch, unit="tokens")


def prefill(*, kind: str, length: int) -> Timed:
  """Reads a prompt into a new cache."""
  torch, model = language_model(kind)
  model.eval()
  prompt = torch.from_numpy(np.random.default_rng(0).integers(0, VOCAB, (1, length)))

  def call():
    with torch.inference_mode():
      return model(input_ids=prompt, use_cache=True).logits[0, -1].argmax().item()

  return Timed(call, per_call=length, unit="tokens")


def parameters(kind: str, **sizes: int) -> int:
  """Counts the parameters, tied ones once."""
  return sum(p.numel() for p in language_model(kind, **sizes)[1].parameters())
