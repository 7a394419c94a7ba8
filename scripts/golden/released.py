"""Makes the tiny released models of tests/golden/hf with the library transformers, and records what they compute.

  python -m scripts.golden.released [NAME …]

Needs torch and transformers, which the project itself does not. Every weight is drawn away from its initial value. A
folder holds config.json and model.safetensors as transformers writes them, and reference.npz: input_ids_N and logits_N
for N of 37 and 128, loss_37, gen_prompt with gen_logits_full, the logits of the full forward at a greedy
continuation of 16 tokens, which uses no cache, and noise, the distance of logits_128 from those in double precision
(where it was recorded: above 2e-5).
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.golden.released_variants import GLM5, QWEN4, VARIANTS

FOLDER = Path(__file__).parents[2] / "tests" / "golden" / "hf"
VOCAB, PROMPT, NEW = 53, 12, 16
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

SMALL = dict(hidden_size=24, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40)
LINEAR, FULL = "linear_attention", "full_attention"
MAMBA2 = dict(mamba_n_heads=6, mamba_d_head=8, mamba_n_groups=2, mamba_d_state=10, mamba_d_conv=3, mamba_chunk_size=16)
EPS = dict(rms_norm_eps=3e-5)

# folder -> model type, class of the causal model, arguments of its configuration
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
  "gpt2": (
    *("gpt2", "GPT2LMHeadModel"),
    dict(n_embd=24, n_layer=2, n_head=3, n_inner=56, n_positions=160, layer_norm_epsilon=2e-5),
  ),
  "llama3_rope": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, num_hidden_layers=2, head_dim=8, tie_word_embeddings=True, max_position_embeddings=256)
    | dict(
      rope_parameters=dict(
        rope_type="llama3", rope_theta=5e3, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64,
      )
    ),
  ),
  "yarn_rope": (
    *("llama", "LlamaForCausalLM"),
    dict(SMALL, num_hidden_layers=2, head_dim=8, max_position_embeddings=256)
    | dict(
      rope_parameters=dict(rope_type="yarn", rope_theta=5e3, factor=4.0, original_max_position_embeddings=64)
    ),
  ),
  "jamba": (
    *("jamba", "JambaForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=4, num_experts=3, num_experts_per_tok=2, expert_layer_period=2)
    | dict(expert_layer_offset=1, attn_layer_period=4, attn_layer_offset=2, mamba_d_state=5, mamba_d_conv=3)
    | dict(mamba_expand=3, mamba_dt_rank=7, mamba_proj_bias=True, use_mamba_kernels=False),
  ),
  "bamba": (
    *("bamba", "BambaForCausalLM"),
    dict(SMALL, **MAMBA2, **EPS, num_hidden_layers=3, attn_layer_indices=[1], mamba_expand=2, attention_bias=True)
    | dict(num_attention_heads=3, num_key_value_heads=1, mamba_proj_bias=True, mlp_bias=True)
    | dict(time_step_limit=(0.05, 0.9)),
  ),
  "granitemoehybrid": (
    *("granitemoehybrid", "GraniteMoeHybridForCausalLM"),
    dict(SMALL, **MAMBA2, **EPS, num_hidden_layers=3, layer_types=[LINEAR, FULL, LINEAR], mamba_expand=2)
    | dict(num_local_experts=3, num_experts_per_tok=2, shared_intermediate_size=20, embedding_multiplier=6.0)
    | dict(logits_scaling=3.0, residual_multiplier=0.3, attention_multiplier=0.2, tie_word_embeddings=True)
    | dict(position_embedding_type="rope"),
  ),
  "granite_dense": (
    *("granitemoehybrid", "GraniteMoeHybridForCausalLM"),
    dict(SMALL, **MAMBA2, num_hidden_layers=2, layer_types=[LINEAR, FULL], mamba_expand=2, num_local_experts=0)
    | dict(shared_intermediate_size=20, attention_bias=True, position_embedding_type="nope"),
  ),
  "falcon_h1": (
    *("falcon_h1", "FalconH1ForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=2, head_dim=8, mamba_d_ssm=36, mamba_n_heads=6, mamba_d_head=6)
    | dict(mamba_n_groups=2, mamba_d_state=10, mamba_d_conv=3, mamba_chunk_size=16, mamba_rms_norm=True)
    | dict(mamba_norm_before_gate=True, lm_head_multiplier=0.4, embedding_multiplier=3.0, key_multiplier=0.7)
    | dict(mlp_multipliers=[0.8, 1.3], attention_out_multiplier=0.9, attention_in_multiplier=1.1)
    | dict(ssm_multipliers=[0.7, 0.9, 1.2, 1.1, 0.6], ssm_in_multiplier=1.2, ssm_out_multiplier=0.8),
  ),
  "falcon_h1_plain": (
    *("falcon_h1", "FalconH1ForCausalLM"),
    dict(SMALL, num_hidden_layers=2, mamba_d_ssm=36, mamba_n_heads=6, mamba_d_head=6, mamba_n_groups=2)
    | dict(mamba_d_state=10, mamba_rms_norm=False, tie_word_embeddings=True, mlp_bias=True, attention_bias=True)
    | dict(mamba_proj_bias=True, projectors_bias=True),
  ),
  "nemotron_h": (
    *("nemotron_h", "NemotronHForCausalLM"),
    dict(SMALL, layers_block_type=[LINEAR, "moe", FULL, "mlp", LINEAR], head_dim=8, ssm_state_size=10)
    | dict(mamba_num_heads=6, mamba_head_dim=8, n_groups=2, conv_kernel=3, n_routed_experts=4, n_group=2)
    | dict(topk_group=1, num_experts_per_tok=2, moe_intermediate_size=20, moe_shared_expert_intermediate_size=28)
    | dict(routed_scaling_factor=1.7, layer_norm_epsilon=3e-5, use_mamba_kernels=False, chunk_size=16)
    | dict(time_step_limit=(0.0, 0.4), time_step_min=0.02),
  ),
  "nemotron_h_latent": (
    *("nemotron_h", "NemotronHForCausalLM"),
    dict(SMALL, layers_block_type=[LINEAR, "moe", FULL], head_dim=8, ssm_state_size=10, mamba_num_heads=6)
    | dict(mamba_head_dim=8, n_groups=2, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)
    | dict(moe_shared_expert_intermediate_size=28, moe_latent_size=12, use_mamba_kernels=False, chunk_size=16),
  ),
  "lfm2": (
    *("lfm2", "Lfm2ForCausalLM"),
    dict(SMALL, norm_eps=3e-5, num_hidden_layers=3, layer_types=["conv", FULL, "conv"], conv_L_cache=4)
    | dict(conv_bias=True, block_multiple_of=8, block_ffn_dim_multiplier=1.0),
  ),
  "lfm2_moe": (
    *("lfm2_moe", "Lfm2MoeForCausalLM"),
    dict(SMALL, norm_eps=3e-5, num_hidden_layers=3, layer_types=["conv", FULL, "conv"], num_dense_layers=1)
    | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20, routed_scaling_factor=1.3),
  ),
  "lfm3": (
    *("lfm3", "Lfm3ForCausalLM"),
    dict(SMALL, norm_eps=3e-5, num_hidden_layers=3, layer_types=["conv", "sliding_attention", FULL], head_dim=8)
    | dict(sliding_window=20, conv_L_cache=5),
  ),
  "olmo_hybrid": (
    *("olmo_hybrid", "OlmoHybridForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=3, layer_types=[LINEAR, FULL, LINEAR], linear_num_key_heads=2)
    | dict(linear_num_value_heads=2, linear_key_head_dim=10, linear_value_head_dim=14, linear_conv_kernel_dim=3),
  ),
  "qwen3_5": (
    *("qwen3_5_text", "Qwen3_5ForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=3, layer_types=[LINEAR, FULL, LINEAR], head_dim=16)
    | dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10)
    | dict(linear_conv_kernel_dim=3),
  ),
  "qwen3_5_moe": (
    *("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"),
    dict(SMALL, num_hidden_layers=2, layer_types=[LINEAR, FULL], head_dim=16, num_experts=4)
    | dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10)
    | dict(num_experts_per_tok=2, moe_intermediate_size=20, shared_expert_intermediate_size=28),
  ),
  "bailing_hybrid": (
    *("bailing_hybrid", "BailingHybridForCausalLM"),
    dict(SMALL, **EPS, num_key_value_heads=4, num_hidden_layers=3, layer_types=[LINEAR, FULL, LINEAR])
    | dict(mlp_layer_types=["dense", "sparse", "sparse"], moe_intermediate_size=20, num_local_experts=8)
    | dict(n_group=4, topk_group=2, num_experts_per_tok=2, kv_lora_rank=14, q_lora_rank=12, qk_rope_head_dim=6)
    | dict(qk_nope_head_dim=10, v_head_dim=8, head_dim=10, short_conv_kernel_size=3, first_k_dense_replace=1),
  ),
  "lara_mini": (
    *("lara_mini", "LaraMiniForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=3, layer_types=[LINEAR, "sliding_attention", FULL], head_dim=8)
    | dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10)
    | dict(linear_conv_kernel_dim=3, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=20)
    | dict(shared_expert_intermediate_size=28, sliding_window=20, attention_bias=True),
  ),
  "zaya": (
    *("zaya", "ZayaForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=3, layer_types=["hybrid", "hybrid_sliding", "hybrid"], head_dim=8)
    | dict(sliding_window=20, num_experts=3, moe_intermediate_size=20, router_hidden_size=12)
    | dict(cca_time0=3, cca_time1=2),
  ),
  "glm5_next": (
    *("glm5_next", "Glm5NextForConditionalGeneration"),
    dict(GLM5, hc_mult=3, hc_sinkhorn_iters=4, hc_eps=1e-4, n_group=2, topk_group=1),
  ),
  "qwen4_exp": (
    *("qwen4_exp", "Qwen4ExpForConditionalGeneration"),
    dict(
      text_config=TOKENS | QWEN4,
      vision_config=dict(depth=1, hidden_size=8, num_heads=2, intermediate_size=8, out_hidden_size=24)
      | dict(num_position_embeddings=4, patch_size=2),
    ),
  ),
  "zamba": (
    *("zamba", "ZambaForCausalLM"),
    dict(SMALL, **EPS, num_hidden_layers=6, layers_block_type=[LINEAR, LINEAR, "hybrid", LINEAR, "hybrid", LINEAR])
    | dict(mamba_d_state=5, mamba_d_conv=3, mamba_dt_rank=4, n_mamba_heads=2, mamba_expand=2, mamba_proj_bias=True)
    | dict(use_mamba_kernels=False),
  ),
  "zamba2": (
    *("zamba2", "Zamba2ForCausalLM"),
    dict(SMALL, **EPS, num_key_value_heads=4, num_hidden_layers=6, n_mamba_heads=6, mamba_ngroups=2)
    | dict(layers_block_type=[LINEAR, "hybrid", "hybrid", LINEAR, "hybrid", LINEAR], num_mem_blocks=2)
    | dict(mamba_d_state=10, mamba_d_conv=3, chunk_size=16, adapter_rank=3, use_shared_attention_adapter=True)
    | dict(use_mem_rope=True, time_step_min=0.02, use_mamba_kernels=False),
  ),
}  # fmt: skip


def draw(model: Any, seed: int) -> None:
  """Draws all weights: matrices by their fan-in, vectors around their initial values."""
  import torch

  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, tensor in sorted(model.state_dict().items()):
      # MiniMax's three tables are made of its fourth
      if not tensor.is_floating_point() or name.endswith(("slope_rate", "_decay")):
        continue
      noise = torch.randn(tensor.shape, generator=generator)
      is_matrix = tensor.ndim >= 2 and not name.endswith(("A_log", "bias", "D"))
      if "embed" in name or "wte" in name or "wpe" in name:
        tensor.copy_(noise)
      elif is_matrix:
        tensor.copy_(noise * tensor.shape[-1] ** -0.5)
      else:
        tensor.add_(0.3 * noise)


def load(folder: Path, cls: str, without: Sequence[str] = ()) -> Any:
  """Reads a model as transformers does, to run as plain PyTorch that knows double precision.

  Args:
    without: regular expressions of tensors that may be missing, such as those of images.

  Raises:
    RuntimeError: a tensor is missing, unknown, or of another shape.
  """
  import transformers

  options = dict(attn_implementation="eager", experts_implementation="eager", dtype="float32")
  model, report = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True, **options)
  report["missing_keys"] = {
    name for name in report["missing_keys"] if not any(re.fullmatch(pattern, name) for pattern in without)
  }
  if wrong := {kind: names for kind, names in report.items() if names}:
    raise RuntimeError(f"transformers does not read {folder} as it is: {wrong}")
  return model.eval()


def record(name: str) -> None:
  """Writes the folder of one model."""
  import torch
  import transformers

  kind, cls, options = (MODELS | VARIANTS)[name]
  folder = FOLDER / name
  shutil.rmtree(folder, ignore_errors=True)
  config_class = type(transformers.AutoConfig.for_model(kind))
  # a section of the language model names the tokens itself
  config = config_class(**({} if "text_config" in options else TOKENS) | options)
  torch.manual_seed(0)
  model = getattr(transformers, cls)(config).float()
  draw(model, seed=len(name))
  model.save_pretrained(folder)
  # what counts is what transformers makes of the file: Zaya's last selection bias is another one then
  model = load(folder, cls)
  rng = np.random.default_rng(len(name))
  numbers: dict[str, Any] = {}

  def logits(tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
      return model(torch.tensor(tokens, dtype=torch.long), use_cache=False).logits.float().numpy()

  for length in (37, 128):
    tokens = rng.integers(3, VOCAB, (1, length)).astype(np.int32)
    numbers |= {f"input_ids_{length}": tokens, f"logits_{length}": logits(tokens)}
  ids = torch.tensor(numbers["input_ids_37"], dtype=torch.long)
  with torch.no_grad():
    numbers["loss_37"] = model(ids, labels=ids, use_cache=False).loss.float().numpy()
  tokens = prompt = numbers["input_ids_37"][:, :PROMPT]
  for _ in range(NEW):
    tokens = np.concatenate([tokens, logits(tokens)[:, -1:].argmax(-1).astype(np.int32)], axis=1)
  numbers |= {"gen_prompt": prompt, "gen_logits_full": logits(tokens)[:, PROMPT - 1 : -1]}
  numbers |= noise(model, numbers)
  np.savez_compressed(folder / "reference.npz", **numbers)
  for path in folder.iterdir():
    if path.name not in ("config.json", "model.safetensors", "reference.npz"):
      path.unlink()
  about(name, transformers.__version__, torch.__version__)
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(f"{name}: {size / 1e3:.0f} kB, largest logit {np.abs(numbers['logits_128']).max():.1f}", flush=True)


def noise(model: Any, numbers: dict[str, np.ndarray]) -> dict[str, Any]:
  """Returns the distance of the recorded logits from those in double precision, where it is not small."""
  import torch

  with torch.no_grad():
    exact = model.double()(torch.tensor(numbers["input_ids_128"], dtype=torch.long), use_cache=False).logits.numpy()
  model.float()
  distance = np.abs(numbers["logits_128"] - exact).max()
  return {"noise": np.float32(distance)} if distance > 2e-5 else {}


def about(name: str, library: str, torch_version: str) -> None:
  """Writes down with which versions a folder was made."""
  path = FOLDER / "about.json"
  facts = json.loads(path.read_text())
  facts["made with"][name] = f"transformers {library}, torch {torch_version}"
  path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
  for each in sys.argv[1:] or MODELS | VARIANTS:
    record(each)
