"""Efficient attention: three layers of transformers, three by others in torch, Luna's attention by its authors."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, drawn, under, with_parameters, with_torch_gradients

B, T, D, H = 2, 24, 8, 2
BLOCK, LANDMARKS, TAPS, CHUNK, BUCKETS, FEATURES = 2, 6, 5, 4, 6, 11
KEY_BIASES = {"key.bias", "k_proj.bias", "pk_proj.bias"}
# Of each head, for each block but the first and the last, one that it does not see anyway.
CHOSEN = np.array(
  [[[4], [5], [8], [1], [2], [9], [3], [10], [6], [7]], [[8], [10], [6], [7], [1], [3], [9], [5], [2], [4]]]
)
# What Luna's attention asks of fairseq, and what it needs none of here.
LUNA = (
  TORCH
  + """
class FairseqDropout(nn.Identity):
  def __init__(self, p, module_name):
    super().__init__()
class utils:
  softmax = staticmethod(lambda x, dim, onnx_trace: torch.softmax(x, dim))
with_incremental_state = lambda cls: cls
quant_noise = lambda layer, p, size: layer
"""
)
PERFORMER = (
  TORCH + "from functools import partial\nTORCH_GE_1_8_0 = True\ndef default(x, y): return y if x is None else x\n"
)


def tokens(rng: np.random.Generator, *shape: int) -> dict[str, np.ndarray]:
  return {name: rng.standard_normal(shape) for name in "qkv"}


def layer(
  module: Any, rng: np.random.Generator, call: Callable | None = None, spread: float = 0.3
) -> dict[str, np.ndarray]:
  """Runs a module at drawn parameters but for keys' biases, which change no weight: their gradients are rounding."""
  call = call or (lambda x: module(x))
  inputs = drawn(module, rng, spread) | {"x": rng.standard_normal((B, T, D))}
  for name in KEY_BIASES & inputs.keys():
    del inputs[name]
    module.get_parameter(name).data.zero_()

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: call(x)),)

  return with_torch_gradients(run, inputs, rng)


def linear_transformer(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs attention to all tokens, from queries, keys and values; the causal form is a compiled kernel there."""
  rng = np.random.default_rng(0)
  attention = official["LinearAttention"].__new__(official["LinearAttention"])
  official["torch"].nn.Module.__init__(attention)

  class Features:
    new_feature_map = staticmethod(lambda device: None)
    forward_queries = forward_keys = staticmethod(lambda x: official["F"].elu(x) + 1)

  class All:
    all_ones, float_matrix = True, official["torch"].ones(B, T)

  attention.feature_map, attention.eps = Features, 1e-6
  run = lambda q, k, v: (attention(q, k, v, All, All, All),)
  return with_torch_gradients(run, tokens(rng, B, T, H, D // H), rng)


def performer(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs attention by given features, with nothing added to them where the kernel is softmax's."""
  entries: dict[str, np.ndarray] = {}
  for kind, causal in (("full", False), ("causal", True), ("relu", False)):
    rng = np.random.default_rng(0)
    W = rng.standard_normal((FEATURES, D // H))

    def run(q, k, v, W, kind=kind, causal=causal):
      heads_first = lambda z: z.transpose(1, 2)
      q, k, v = map(heads_first, (q, k, v))
      if kind == "relu":
        q, k = (official["generalized_kernel"](z, projection_matrix=W) for z in (q, k))
      else:
        q, k = (official["softmax_kernel"](z, projection_matrix=W, is_query=z is q, eps=0) for z in (q, k))
      if causal:
        return (heads_first(official["causal_linear_attention_noncuda"](q, k, v, chunk_size=3, eps=0)),)
      return (heads_first(official["linear_attention"](q, k, v)),)

    entries |= under(kind, with_torch_gradients(run, tokens(rng, B, T, H, D // H) | {"W": W}, rng))
  return entries


def linformer(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs a layer with two sets of mixtures, on fewer tokens than they have rows."""
  rng = np.random.default_rng(0)
  return layer(official["LinformerSelfAttention"](D, T + 3, k=5, heads=H), rng)


def luna(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs both attentions, with keys and values apart and the same."""
  entries: dict[str, np.ndarray] = {}
  for kind in ("apart", "tied"):
    rng = np.random.default_rng(0)
    module = official["LunarMultiheadAttention"](D, H, H, self_attention=True, tie_kv=kind == "tied")
    P = official["nn"].Parameter(official["torch"].zeros(3, D))
    module.register_parameter("P", P)

    def call(x, module=module):
      time_first = x.transpose(0, 1)
      packed = module.P[:, None].expand(-1, B, -1)
      return module(time_first, packed, None)[0].transpose(0, 1)

    # at smaller ones all attend to all alike, and gradients of scores are differences of like numbers
    entries |= under(kind, layer(module, rng, call, spread=0.8))
  return entries


def of_transformers(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Nystromformer's, BigBird's and Reformer's attention without the last map, and FNet's transform."""
  del official
  import torch

  rng = np.random.default_rng(0)
  code = lambda family: import_module(f"transformers.models.{family}.modeling_{family}")
  config = lambda family, name, **sizes: getattr(
    import_module(f"transformers.models.{family}.configuration_{family}"), f"{name}Config"
  )(hidden_size=D, num_attention_heads=H, **sizes)
  fnet = code("fnet").FNetBasicFourierTransform(config("fnet", "FNet", use_tpu_fourier_optimizations=False))
  entries = under("fnet", layer(fnet, rng, lambda x: fnet(x)[0]))

  sizes = dict(
    segment_means_seq_len=T, num_landmarks=LANDMARKS, conv_kernel_size=TAPS, attention_probs_dropout_prob=0.0
  )
  nystrom = code("nystromformer").NystromformerSelfAttention(config("nystromformer", "Nystromformer", **sizes))
  nystrom.init_option = "exact"  # from each matrix's own norm
  entries |= under("nystromformer", layer(nystrom, rng, lambda x: nystrom(x)[0]))

  sizes = dict(block_size=BLOCK, num_random_blocks=1, max_position_embeddings=T)
  bird = code("big_bird").BigBirdBlockSparseAttention(config("big_bird", "BigBird", **sizes))
  bird._bigbird_block_rand_mask_with_head = lambda *args, **kwargs: list(CHOSEN)
  ones = torch.ones(B, T)
  blocked = ones.view(B, -1, BLOCK)
  neighbours = torch.cat([blocked[:, 1:-3], blocked[:, 2:-2], blocked[:, 3:-1]], dim=2)
  band = torch.einsum("blq,blk->blqk", blocked[:, 2:-2], neighbours)[:, None]
  masks = (band, ones.view(B, 1, T, 1), ones.view(B, 1, 1, T), blocked, blocked)
  entries |= under("bigbird", layer(bird, rng, lambda x: bird(x, *masks)[0]))

  lsh = dict[str, Any](
    attention_head_size=D // H, lsh_attn_chunk_length=CHUNK, num_buckets=BUCKETS, num_hashes=1, hash_seed=0,
    lsh_num_chunks_before=1, lsh_num_chunks_after=0, lsh_attention_probs_dropout_prob=0.0, is_decoder=False,
    max_position_embeddings=T, attn_layers=["lsh"],
  )  # fmt: skip
  reformer = code("reformer").LSHSelfAttention(config("reformer", "Reformer", **lsh))
  entries |= under("reformer", layer(reformer, rng, lambda x: reformer(x).hidden_states))
  torch.manual_seed(0)
  return entries | {"reformer_hash/R": torch.randn(H, D // H, 1, BUCKETS // 2).numpy()}


RECIPES = {
  "efficient_attention": Recipe("huggingface/transformers", {}, "", of_transformers, library="transformers"),
  "linear_transformer": Recipe(
    "idiap/fast-transformers",
    {"fast_transformers/attention/linear_attention.py": ("LinearAttention",)},
    TORCH + "from torch.nn import Module\n",
    linear_transformer,
  ),
  "linformer": Recipe(
    "lucidrains/linformer", {"linformer/linformer.py": ("init_", "default", "LinformerSelfAttention")}, TORCH, linformer
  ),
  "luna": Recipe(
    "XuezheMax/fairseq-apollo", {"fairseq/modules/luna_attention.py": ("LunarMultiheadAttention",)}, LUNA, luna
  ),
  "performer": Recipe(
    "lucidrains/performer-pytorch",
    {
      "performer_pytorch/performer_pytorch.py": (
        *("softmax_kernel", "generalized_kernel"),
        *("linear_attention", "causal_linear_attention_noncuda"),
      )
    },
    PERFORMER,
    performer,
  ),
}
