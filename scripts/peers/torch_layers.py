"""Single layers of `transformers`, `mambapy` and torch itself, with random parameters and without caches."""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from scripts.benchmarks.case import Case, Missing, Timed
from scripts.peers.own_process import own_process

Layer = Callable[..., Any]


def cases(peer: str, group: str, size: tuple[int, int, int], **sizes: int) -> list[Case]:
  """Returns the cases of one of LAYERS at a size (batch, length, width), forward and forward+backward."""
  kwargs = {"peer": peer, "size": size, "sizes": sizes}
  make = lambda mode: functools.partial(own_process, "scripts.peers.torch_layers:layer", mode=mode, **kwargs)
  return [Case(f"{group}, {mode}", peer, make(mode)) for mode in ("forward", "forward+backward")]


def layer(*, peer: str, mode: str, size: tuple[int, int, int], sizes: dict[str, int]) -> Timed:
  """Prepares the layer; "forward+backward" adds the cotangents of parameters and input for one of its output."""
  try:
    torch = importlib.import_module("torch")
    # where fla is installed, transformers takes its Triton kernels, which need a GPU
    sys.modules["fla"] = None  # type: ignore[assignment]
    torch.set_num_threads(os.cpu_count() or 1)
    module, call = LAYERS[peer](torch, size, **sizes)
  except ImportError as e:
    raise Missing(f"not installed here ({e})") from e
  x, weights = torch.randn(*size), torch.randn(*size)

  def forward():
    with torch.inference_mode():
      return call(module, x)

  def backward():
    module.zero_grad()
    leaf = x.clone().requires_grad_()
    call(module, leaf).backward(weights)
    return leaf.grad

  return Timed(forward if mode == "forward" else backward)


def _mamba(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import MambaConfig
  from transformers.models.mamba.modeling_mamba import MambaMixer

  config = MambaConfig(hidden_size=size[2], num_hidden_layers=1, use_mambapy=True, **sizes)
  return MambaMixer(config, layer_idx=0), lambda module, x: module(x)


def _mamba_py(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from mambapy.mamba import MambaBlock, MambaConfig

  return MambaBlock(MambaConfig(d_model=size[2], n_layers=1, **sizes)), lambda module, x: module(x)


def _mamba2(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import Mamba2Config
  from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

  heads = 2 * size[2] // sizes["head_dim"]
  config = Mamba2Config(hidden_size=size[2], num_hidden_layers=1, num_heads=heads, n_groups=1, **sizes)
  return Mamba2Mixer(config, layer_idx=0), lambda module, x: module(x)


def _recurrent_gemma(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import RecurrentGemmaConfig
  from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

  config = RecurrentGemmaConfig(hidden_size=size[2], lru_width=size[2], num_hidden_layers=1, **sizes)
  block = RecurrentGemmaRecurrentBlock(config, layer_idx=0)
  # the block is only ever made inside a model, which gives these their values
  for parameter in block.parameters():
    torch.nn.init.normal_(parameter, std=0.1)
  positions = torch.arange(size[1])[None].expand(size[0], -1)
  return block, lambda module, x: module(x, positions, None, use_cache=False)[0]


def _llama(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import LlamaConfig
  from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

  config = LlamaConfig(hidden_size=size[2], num_hidden_layers=1, attn_implementation="sdpa", **sizes)
  turns, positions = LlamaRotaryEmbedding(config), torch.arange(size[1])[None]
  # without a mask it is causal
  return LlamaAttention(config, layer_idx=0), lambda module, x: module(x, turns(x, positions), None)[0]


def _short_conv(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import Lfm2Config
  from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv

  config = Lfm2Config(hidden_size=size[2], num_hidden_layers=1, layer_types=["conv"], **sizes)
  return Lfm2ShortConv(config, layer_idx=0), lambda module, x: module(x)


def _gemma_attention(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import RecurrentGemmaConfig
  from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaAttention

  window = sizes.pop("window")
  config = RecurrentGemmaConfig(
    hidden_size=size[2], num_hidden_layers=1, num_key_value_heads=1, attention_window_size=window, **sizes
  )
  back = torch.arange(size[1])[:, None] - torch.arange(size[1])
  hidden = ~((back >= 0) & (back < window))
  mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None]
  positions = torch.arange(size[1])[None].expand(size[0], -1)
  return RecurrentGemmaAttention(config, layer_idx=0), lambda module, x: module(x, positions, mask)[0]


def _latent(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import DeepseekV3Config
  from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

  heads = sizes["num_attention_heads"]
  config = DeepseekV3Config(
    hidden_size=size[2], num_hidden_layers=1, num_key_value_heads=heads, attn_implementation="sdpa", **sizes
  )
  turns, positions = DeepseekV3RotaryEmbedding(config), torch.arange(size[1])[None]
  return DeepseekV3Attention(config, layer_idx=0), lambda module, x: module(x, turns(x, positions), None)[0]


def _rwkv(torch: Any, size: tuple[int, int, int]) -> tuple[Any, Layer]:
  from transformers import RwkvConfig
  from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

  module = RwkvSelfAttention(RwkvConfig(hidden_size=size[2], num_hidden_layers=2, context_length=size[1]))
  # the layer is only ever made inside a model, which gives these their values
  for parameter in module.parameters():
    torch.nn.init.normal_(parameter, std=0.1)
  return module, lambda module, x: module(x)[0]


def _lightning(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import MiniMaxConfig
  from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

  config = MiniMaxConfig(hidden_size=size[2], num_hidden_layers=2, **sizes)
  return MiniMaxLightningAttention(config, 0), lambda module, x: module(x, None, None)[0]


def _qwen_delta(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import Qwen3NextConfig
  from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

  config = Qwen3NextConfig(hidden_size=size[2], num_hidden_layers=1, layer_types=["linear_attention"], **sizes)
  return Qwen3NextGatedDeltaNet(config, layer_idx=0), lambda module, x: module(x)


def _kimi_delta(torch: Any, size: tuple[int, int, int], **sizes: int) -> tuple[Any, Layer]:
  from transformers import KimiLinearConfig
  from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention

  config = KimiLinearConfig(hidden_size=size[2], num_hidden_layers=1, **sizes)
  return KimiLinearDeltaAttention(config, layer_idx=0), lambda module, x: module(x)


def _recurrent(name: str) -> Callable[..., tuple[Any, Layer]]:
  def make(torch: Any, size: tuple[int, int, int]) -> tuple[Any, Layer]:
    return getattr(torch.nn, name)(size[2], size[2], batch_first=True), lambda module, x: module(x)[0]

  return make


LAYERS: dict[str, Callable[..., tuple[Any, Layer]]] = {
  "transformers MambaMixer": _mamba,
  "transformers Mamba2Mixer": _mamba2,
  "transformers RecurrentGemmaRecurrentBlock": _recurrent_gemma,
  "transformers Lfm2ShortConv": _short_conv,
  "transformers LlamaAttention": _llama,
  "transformers RecurrentGemmaAttention": _gemma_attention,
  "transformers DeepseekV3Attention": _latent,
  "transformers RwkvSelfAttention": _rwkv,
  "transformers MiniMaxLightningAttention": _lightning,
  "transformers Qwen3NextGatedDeltaNet": _qwen_delta,
  "transformers KimiLinearDeltaAttention": _kimi_delta,
  "mambapy MambaBlock": _mamba_py,
  "torch.nn.GRU": _recurrent("GRU"),
  "torch.nn.LSTM": _recurrent("LSTM"),
  "torch.nn.RNN": _recurrent("RNN"),
}
