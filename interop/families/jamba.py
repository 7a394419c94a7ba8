"""Jamba (Lieber et al. 2024) as transformers saves it: Mamba with learned inner norms, attention, MLPs and experts.

Layers are of a kind by their period and offset. The weights of the chosen experts are not divided by their sum.
"""

from typing import Any

from hybrids.recipes import jamba
from interop.config import Config
from interop.parts import attention, gated_mlp, table
from interop.rows import Row, dense, depthwise_conv, each, row, stack, turn

LETTERS = 2
# how transformers runs it
IGNORED = "calc_logits_for_entire_prompt max_position_embeddings mamba_inner_layernorms num_logits_to_keep"
IGNORED += " use_associative_scan use_mamba_kernels use_mambapy"
SKIPPED = ()


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  config.expect("hidden_act", "silu")
  config.expect("sliding_window", None)
  heads, rank, eps = config.get("num_attention_heads"), config.get("mamba_dt_rank", "auto"), config.get("rms_norm_eps")
  section = jamba.model(
    width=config.get("hidden_size"),
    depth=config.get("num_hidden_layers"),
    inner=config.get("intermediate_size"),
    heads=heads,
    kv_heads=config.get("num_key_value_heads", heads),
    experts=config.get("num_experts", 16),
    top_k=config.get("num_experts_per_tok", 2),
    pattern=_pattern(config),
    state=config.get("mamba_d_state", 16),
    expand=config.get("mamba_expand", 2),
    taps=config.get("mamba_d_conv", 4),
    dt_rank=None if rank == "auto" else rank,
    norm_eps=eps,
    tie=config.get("tie_word_embeddings", False),
  )
  letters = section["body"]["letters"]
  if "m" in letters:
    letters["m"] |= dict(norm_eps=eps, bias=config.get("mamba_proj_bias", False))
    letters["m"] |= dict(conv_bias=config.get("mamba_conv_bias", True))
  if "e" in letters:
    letters["e"]["balance"] = config.get("router_aux_loss_coef", 0.001)
  return section


def _pattern(config: Config) -> str:
  period = lambda kind, size, place: (
    config.get(f"{kind}_layer_period", size),
    config.get(f"{kind}_layer_offset", place),
  )
  (every, place), (many, first) = period("attn", 8, 4), period("expert", 2, 1)
  mixture = config.get("num_experts", 16) > 1
  return "".join(
    "ma"[i % every == place] + "-e"[i % many == first and mixture] for i in range(config.get("num_hidden_layers"))
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer, bias = "model.layers.{i}.", config.get("mamba_proj_bias", False)
  mamba, feed = layer + "mamba.", layer + "feed_forward"
  numbered = lambda name: each(f"{feed}.experts.{{e}}.{name}.weight", e=config.get("num_experts", 16))
  return [
    row("model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ma/norm/scale"),
    *dense(mamba + "in_proj", "m/mixer/in_proj", bias=bias),
    *depthwise_conv(mamba + "conv1d", "m/mixer/conv", bias=config.get("mamba_conv_bias", True)),
    *dense(mamba + "x_proj", "m/mixer/x_proj"),
    *(row(f"{mamba}{name.lower()}_layernorm.weight", f"m/mixer/{name}_norm/scale") for name in ("dt", "B", "C")),
    *dense(mamba + "dt_proj", "m/mixer/dt_proj", bias=True),
    row(mamba + "A_log", "m/mixer/A_log"),
    row(mamba + "D", "m/mixer/D"),
    *dense(mamba + "out_proj", "m/mixer/out_proj", bias=bias),
    *attention(layer + "self_attn", "a/mixer"),
    row(layer + "pre_ff_layernorm.weight", "-e/norm/scale"),
    *gated_mlp(feed, "-/mixer"),
    row(feed + ".router.weight", "e/mixer/router", turn),
    row(numbered("gate_proj"), "e/mixer/gate_proj", turn, stack),
    row(numbered("up_proj"), "e/mixer/in_proj", turn, stack),
    row(numbered("down_proj"), "e/mixer/out_proj", turn, stack),
    row("model.final_layernorm.weight", "body/final_norm/scale"),
    *table(config, tie=False),
  ]
