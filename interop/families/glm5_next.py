"""GLM-5 Next (2026) as transformers saves it: delta attention, indexed latent attention and experts on four streams.

The language model's config is the section `text_config`, or the whole file. transformers lets a latent layer take over
the choice of the layer right before it; the layers between two latent ones choose nothing, so that no release does so.
The parameters of the indexer are kept as they are: choosing has no gradient.
"""

from typing import Any

from hybrids.recipes import glm5
from interop.config import Config
from interop.rows import Row, dense, depthwise, each, join, layer_norm, row, stack, turn, unpack

LETTERS = 2
# the section of images, tokens that stand for them, and what follows from other keys
IGNORED = (
  "head_dim image_end_token_id image_start_token_id image_token_id max_position_embeddings num_key_value_heads "
  "num_nextn_predict_layers qk_head_dim rope_parameters rope_scaling rope_theta text_config video_end_token_id "
  "video_start_token_id video_token_id vision_config"
)
SKIPPED = (r"model\.visual\..*", r"model\.language_model\.layers\.\d+\.shared_head\..*", r".*\.layers\.45\..*")
KINDS = {"linear_attention": "k", "indexed_attention": "a", "full_attention": "a"}
CHANNELS = {"dense": "-", "sparse": "e"}
LOWER_BOUND = -5.0


def _text(config: Config) -> Config:
  return config.inside("text_config") if config.has("text_config") else config


def vocab(config: Config) -> int:
  """Returns the rows of the table."""
  return _text(config).get("vocab_size")


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  text = _text(config)
  text.expect("hidden_act", "silu")
  text.expect("attention_bias", False)
  text.expect("qk_rope_head_dim", 0)
  text.expect("index_kpool_always_select_tail", True)
  tie = config.get("tie_word_embeddings", False)
  text.get("tie_word_embeddings", False)
  heads, size, taps, lower = _delta(text)
  width, eps = text.get("moe_intermediate_size", 2048), text.get("rms_norm_eps", 1e-5)
  made = glm5.model(
    width=text.get("hidden_size", 4096),
    pattern=_pattern(text),
    delta=dict(heads=heads, head_size=size, taps=taps, lower_bound=lower),
    latent=dict(
      heads=text.get("num_attention_heads", 64),
      rank=text.get("kv_lora_rank", 512),
      q_rank=text.get("q_lora_rank", 1536),
      head_size=text.get("qk_nope_head_dim", 256),
      value_size=text.get("v_head_dim", 256),
      index_heads=text.get("index_n_heads", 32),
      index_size=text.get("index_head_dim", 128),
      pool=text.get("index_kpool", 16),
      chosen=text.get("index_topk", 2048),
    ),
    experts=dict(
      experts=_experts(text),
      top_k=text.get("num_experts_per_tok", 8),
      inner=width,
      groups=text.get("n_group", 1),
      top_groups=text.get("topk_group", 1),
      renormalize=text.get("norm_topk_prob", True),
      scale=float(text.get("routed_scaling_factor", 2.5)),
      shared=text.get("n_shared_experts", 1) * width,
    ),
    inner=text.get("intermediate_size", 12_288),
    limit=float(text.get("swiglu_limit", 10.0)),
    norm_eps=eps,
    streams=dict(
      streams=text.get("hc_mult", 4), iterations=text.get("hc_sinkhorn_iters", 20), eps=text.get("hc_eps", 1e-6)
    ),
    tie=tie,
  )
  if text is not config:
    text.get("vocab_size")
    text.finish(IGNORED)
    config.pass_over(text)
  return made


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  text, layer = _text(config), "model.language_model.layers.{i}."
  attention, experts, count = layer + "self_attn.", layer + "mlp.", _experts(text)
  k, a, e = "k/mixer/inner", "a/mixer/inner", "e/mixer/inner"
  heads, size, _, _ = _delta(text)
  channels = heads * size
  up = unpack(text.get("num_attention_heads", 64), text.get("qk_nope_head_dim", 256), text.get("v_head_dim", 256))
  convs = [f"{attention}{name}_conv1d.weight" for name in "qkv"]
  expert = lambda name: each(f"{experts}experts.{{e}}.{name}_proj.weight", e=count)
  return [
    row("model.language_model.embed_tokens.weight", "embed/embedding"),
    row(layer + "input_layernorm.weight", "ka/mixer/norm/scale"),
    row(layer + "post_attention_layernorm.weight", "-e/mixer/norm/scale"),
    *_streams(layer + "hc_attn_", "ka"),
    *_streams(layer + "hc_ffn_", "-e"),
    *(line for name in "qkv" for line in dense(f"{attention}{name}_proj", f"{k}/qkv/{name}_proj")),
    row(convs, f"{k}/qkv/conv/kernel", depthwise, join(channels, channels, channels, axis=-1)),
    *dense(attention + "f_a_proj", f"{k}/a_proj/down"),
    *dense(attention + "f_b_proj", f"{k}/a_proj/up"),
    row(attention + "A_log", f"{k}/A_log"),
    row(attention + "dt_bias", f"{k}/dt_bias"),
    *dense(attention + "b_proj", f"{k}/b_proj"),
    *dense(attention + "g_a_proj", f"{k}/g_proj/down"),
    *dense(attention + "g_b_proj", f"{k}/g_proj/up"),
    row(attention + "o_norm.weight", f"{k}/gated_norm/scale"),
    *dense(attention + "o_proj", "ka/mixer/inner/out_proj"),
    *dense(attention + "q_a_proj", f"{a}/q_down"),
    row(attention + "q_a_layernorm.weight", f"{a}/q_norm/scale"),
    *dense(attention + "q_b_proj", f"{a}/q_up"),
    *dense(attention + "kv_a_proj_with_mqa", f"{a}/c_proj"),
    row(attention + "kv_a_layernorm.weight", f"{a}/c_norm/scale"),
    row(attention + "kv_b_proj.weight", [f"{a}/k_up", f"{a}/v_up"], up, turn),
    *dense(attention + "indexer.wq_b", f"{a}/index_q"),
    *dense(attention + "indexer.wk", f"{a}/index_k"),
    *layer_norm(attention + "indexer.k_norm", f"{a}/index_norm"),
    *dense(attention + "indexer.weights_proj", f"{a}/index_weights"),
    row(attention + "indexer.index_kpool_compress_gate", f"{a}/index_gate/kernel", turn),
    row(attention + "indexer.index_kpool_compress_ape", f"{a}/P"),
    *_mlp(layer + "mlp.", "-/mixer/inner/"),
    row(experts + "gate.weight", f"{e}/router", turn),
    row(experts + "gate.e_score_correction_bias", "buffers:e/mixer/inner/selection_bias"),
    row(expert("gate"), f"{e}/gate_proj", turn, stack),
    row(expert("up"), f"{e}/in_proj", turn, stack),
    row(expert("down"), f"{e}/out_proj", turn, stack),
    *_mlp(experts + "shared_experts.", f"{e}/shared_expert/"),
    row("model.language_model.norm.weight", "body/final_norm/scale"),
    *([] if config.get("tie_word_embeddings", False) else [row("lm_head.weight", "head/table")]),
  ]


def _streams(theirs: str, letters: str) -> list[Row]:
  ours = f"{letters}/mixer/"
  return [row(theirs + "fn", ours + "W", turn), row(theirs + "base", ours + "b"), row(theirs + "scale", ours + "s")]


def _mlp(theirs: str, ours: str) -> list[Row]:
  names = {"gate_proj": "gate_proj", "up_proj": "in_proj", "down_proj": "out_proj"}
  return [line for name, own in names.items() for line in dense(theirs + name, ours + own)]


def _experts(text: Config) -> int:
  return text.get("n_routed_experts", text.get("num_local_experts", 288))


def _delta(text: Config) -> tuple[int, int, int, float | None]:
  """Returns heads, size of a head, taps and least logarithm of a decay of delta attention."""
  given = text.get("linear_attn_config", {})
  pick = lambda older, newer, default: given.get(older) or text.get(newer, default)
  lower = text.get("linear_lower_bound", LOWER_BOUND)
  if text.values.get("linear_lower_bound", LOWER_BOUND) is None:
    lower = None
  if given:
    lower = given.get("gate_lower_bound", lower)
    lower = LOWER_BOUND if lower is None and given.get("safe_gate", True) else lower
  return (
    pick("num_heads", "linear_num_heads", 64),
    pick("head_dim", "linear_head_dim", 128),
    pick("short_conv_kernel_size", "linear_conv_kernel_dim", 4),
    lower,
  )


def _pattern(text: Config) -> str:
  depth = text.get("num_hidden_layers", 45)
  kinds = text.get("layer_types", [list(KINDS)[i % 4 == 3] for i in range(depth)])
  channel = text.get("mlp_layer_types", ["dense" if i < 3 else "sparse" for i in range(depth)])
  text.expect("index_topk_freq", 1)
  text.get("index_skip_topk_offset", 0)
  pattern = [{"F": "full", "S": "shared"}.get(mode, mode) for mode in text.get("index_topk_pattern", "F" * depth)]
  modes = text.get("indexer_types", pattern)
  for key, value in (("layer_types", kinds), ("mlp_layer_types", channel), ("indexer_types", modes)):
    if len(value) != depth:
      raise text.refuse(key, f"a list of num_hidden_layers={depth} entries")
  if any(KINDS.get(kind) == "a" and mode != "full" for kind, mode in zip(kinds, modes)):
    raise text.refuse("indexer_types", "'full' in latent layers, each of which chooses for itself")
  return "".join(KINDS[kind] + CHANNELS[other] for kind, other in zip(kinds, channel))
