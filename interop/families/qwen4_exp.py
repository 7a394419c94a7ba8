"""Qwen4-Exp (2026) as transformers saves it, text: Qwen3.5 with experts on gated streams, n-grams, chosen blocks.

The language model's config is the section `text_config`, or the whole file. Norms store their distance from 1, but for
the one inside of the delta net. Tables of n-grams are cut into parts as `torch.chunk` cuts; the numbers that hashes are
made with follow from the config. The parameters of the indexer are kept as they are: choosing has no gradient.
"""

import string
from collections.abc import Iterator
from typing import Any

import numpy as np

from hybrids.embed.ngrams import NGrams
from hybrids.recipes import qwen4
from interop import parts
from interop.config import Config
from interop.families.qwen3_next import delta, delta_sizes, expert_fields
from interop.rope import rope
from interop.rows import Row, dense, depthwise, each, join, plus_one, row, split, turn, unpack

# the section of images, tokens that stand for them, and what follows from other keys
IGNORED = (
  "image_token_id indexer_kv_heads max_position_embeddings number_of_conv_states text_config video_token_id "
  "vision_config vision_end_token_id vision_start_token_id"
)
# prediction of several tokens, which transformers ignores
SKIPPED = (r"mtp\..*", r"model\.visual\..*")
KINDS = {"linear_attention": "d", "indexed_attention": "a", "full_attention": "a"}
# a layer that adds vectors of n-grams has a letter of its own
MEMORIES = [letter for letter in "n" + string.ascii_letters.replace("n", "") if letter not in "dae"]


def vocab(config: Config) -> int:
  """Returns the rows of the table."""
  return _text(config).get("vocab_size", 248_320)


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  text = _text(config)
  text.expect("hidden_act", "silu")
  text.expect("attention_bias", False)
  size, width = text.get("head_dim", 256), text.get("hidden_size", 2048)
  made = qwen4.model(
    width=width,
    pattern="".join("".join(letters) for letters in _letters(text)),
    delta=dict(delta(text), gate=text.expect("output_gate_type", "silu", "sigmoid")),
    attention=dict(
      heads=text.get("num_attention_heads", 16),
      kv_heads=text.get("num_key_value_heads", 2),
      head_size=size,
      index_heads=text.get("indexer_n_heads"),
      index_size=text.get("indexer_head_dim"),
      pool=text.get("indexer_compress_ratio"),
      chosen=text.get("indexer_budget"),
      **rope(text, size),
    ),
    experts=expert_fields(text, experts=512, top_k=10),
    ngrams=dict(
      order=text.get("ngram_size", 3),
      heads=text.get("heads_per_ngram", 8),
      size=text.get("ple_embed_dim", width),
      rows=text.get("ngram_vocab_size_base", 20_000_000),
      multiple=text.get("make_ngram_vocab_size_divisible_by", 128),
      seed=text.get("seed", 1234),
      end=_end(text),
    ),
    taps=text.get("ple_conv_kernel_size", 4),
    streams=text.get("hc_count", 4),
    rank=text.get("hc_lowrank", 320),
    norm_eps=text.get("rms_norm_eps", 1e-6),
    tie=_tie(config),
  )
  text.get("split_ngram_parts", 512)
  if text is not config:
    # of the two sections' values the outer one counts
    text.get("tie_word_embeddings", False)
    text.get("vocab_size", 0)
    text.finish(IGNORED)
    config.pass_over(text)
  return made


def numbers(config: Config) -> list[int]:
  """Returns their layer of each letter."""
  return [i for i, letters in enumerate(_letters(_text(config))) for _ in letters]


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  text, prefix = _text(config), _prefix(config)
  layer = prefix + "layers.{i}."
  return [
    row(prefix + "embed_tokens.weight", "embed/embedding"),
    *_gather(layer + "attn_hyper_connection", "da/mixer/gather"),
    *_gather(layer + "mlp_hyper_connection", "e/mixer/gather"),
    *_gather(prefix + "hyper_connection_mixer", "body/last", writes=False),
    *_delta(text, layer + "linear_attn.", "d/mixer/inner/"),
    *_attention(text, layer + "self_attn.", "a/mixer/inner/"),
    *parts.experts(layer + "mlp", "e/mixer/inner", text.get("num_experts", 512)),
    *parts.gated_mlp(layer + "mlp.shared_expert", "e/mixer/inner/shared_expert"),
    *dense(layer + "mlp.shared_expert_gate", "e/mixer/inner/shared_gate_proj"),
    *_memories(text, layer + "ple.", "".join(MEMORIES[: len(_memory_layers(text))])),
    *_tables(config),
    *([] if _tie(config) else [row("lm_head.weight", "head/table")]),
  ]


def constants(config: Config) -> dict[str, np.ndarray]:
  """Returns the numbers that hashes are made with."""
  found: dict[str, np.ndarray] = {}
  for theirs, number, embed in _ngrams(config):
    sizes = embed.sizes_of(number)
    found |= {
      theirs + "layer_multipliers": np.array(embed.multipliers_of(number), np.int64),
      theirs + "ngram_heads_vocab_sizes": np.array(sizes, np.int64),
      theirs + "ngram_heads_offsets": np.cumsum((0, *sizes[:-1]), dtype=np.int64),
    }
  return found


def _text(config: Config) -> Config:
  return config.inside("text_config") if config.has("text_config") else config


def _prefix(config: Config) -> str:
  return "model.language_model." if config.has("text_config") else "model."


def _tie(config: Config) -> bool:
  return config.get("tie_word_embeddings", False)


def _end(text: Config) -> int:
  """Returns the token that ends a document, which models with n-grams know."""
  end = text.get("eos_token_id") if _memory_layers(text) else 0
  return end[0] if isinstance(end, list) else end


def _memory_layers(text: Config) -> list[int]:
  """Returns the layers with vectors of n-grams, counted from 0."""
  return [layer - 1 for layer in sorted(set(text.get("ple_layer_ids", [])))]


def _letters(text: Config) -> list[list[str]]:
  """Returns the letters of each layer."""
  depth, every = text.get("num_hidden_layers", 40), text.get("full_attention_interval", 4)
  kinds = text.get("layer_types", [list(KINDS)[(i + 1) % every == 0] for i in range(depth)])
  if len(kinds) != depth:
    raise text.refuse("layer_types", f"a list of num_hidden_layers={depth} entries")
  memories = _memory_layers(text)
  if len(memories) > len(MEMORIES) or not set(memories) <= set(range(depth)):
    raise text.refuse("ple_layer_ids", f"at most {len(MEMORIES)} layers from 1 to num_hidden_layers={depth}")
  own = dict(zip(memories, MEMORIES))
  return [[*own.get(i, ""), KINDS[kind], "e"] for i, kind in enumerate(kinds)]


def _gather(theirs: str, ours: str, *, writes: bool = True) -> list[Row]:
  return [
    row(f"{theirs}.hc_norm.weight", f"{ours}/norm/scale", plus_one),
    *dense(f"{theirs}.input_mix_weight_down", f"{ours}/down"),
    *dense(f"{theirs}.input_mix_weight_up", f"{ours}/up"),
    *(dense(f"{theirs}.block_inject_weight", f"{ours}/write") if writes else []),
  ]


def _delta(text: Config, theirs: str, ours: str) -> list[Row]:
  heads, values, size, value_size = delta_sizes(text)
  qkv = [f"{ours}qkv/{name}_proj/kernel" for name in "qkv"]
  return [
    row(theirs + "in_proj_qkv.weight", qkv, split(heads * size, heads * size, values * value_size), turn),
    *(line for name, own in zip("zba", "gba") for line in dense(f"{theirs}in_proj_{name}", f"{ours}{own}_proj")),
    row(theirs + "conv1d.weight", ours + "qkv/conv/kernel", depthwise),
    row(theirs + "A_log", ours + "A_log"),
    row(theirs + "dt_bias", ours + "dt_bias"),
    row(theirs + "norm.weight", ours + "gated_norm/scale"),
    *dense(theirs + "out_proj", ours + "out_proj"),
  ]


def _attention(text: Config, theirs: str, ours: str) -> list[Row]:
  heads, size = text.get("num_attention_heads", 16), text.get("head_dim", 256)
  index_heads, index_size = text.get("indexer_n_heads"), text.get("indexer_head_dim")
  q = [ours + "q_proj/kernel", ours + "gate_proj/kernel"]
  index = [ours + "index_q/kernel", ours + "index_k/kernel"]
  scales = {"q_norm": "q_norm/scale", "k_norm": "k_norm/scale"}
  scales |= {"indexer.q_layernorm": "index_q_norm/scale", "indexer.k_layernorm": "index_k_scale"}
  return [
    row(theirs + "q_proj.weight", q, unpack(heads, size, size), turn),
    *dense(theirs + "k_proj", ours + "k_proj"),
    *dense(theirs + "v_proj", ours + "v_proj"),
    *dense(theirs + "o_proj", ours + "out_proj"),
    row(theirs + "indexer.index_qk_proj.weight", index, split(index_heads * index_size, index_size), turn),
    *(row(f"{theirs}{name}.weight", ours + own, plus_one) for name, own in scales.items()),
  ]


def _memories(text: Config, theirs: str, letters: str) -> list[Row]:
  """Returns the rows of the layers that add vectors of n-grams, without the tables."""
  if not letters:
    return []
  ours = letters + "/mixer/"
  return [
    *dense(theirs + "key_proj", ours + "k_proj"),
    *dense(theirs + "value_proj", ours + "v_proj"),
    row(theirs + "norm_query.weight", ours + "q_norm/scale", plus_one),
    row(theirs + "norm_key.weight", ours + "k_norm/scale", plus_one),
    row(theirs + "norm_conv.weight", ours + "conv_norm/scale", plus_one),
    row(theirs + "conv1d.weight", ours + "conv/kernel", depthwise),
  ]


def _ngrams(config: Config) -> Iterator[tuple[str, int, NGrams]]:
  """Yields the prefix of the tensors of each set of tables, its number, and the embedding that has it."""
  layers = _memory_layers(_text(config))
  if layers:
    made = sections(config)
    fields = {name: value for name, value in made["embed"].items() if name != "name"}
    embed = NGrams(width=made["width"], vocab=vocab(config), **fields)
    for number, layer in enumerate(layers):
      yield f"{_prefix(config)}layers.{layer}.ple.ple_embedding.", number, embed


def _tables(config: Config) -> Iterator[Row]:
  """Yields the rows of the tables of n-grams."""
  most = _text(config).get("split_ngram_parts", 512)
  for theirs, number, embed in _ngrams(config):
    rows = embed.rows_of(number)
    part = -(-rows // most)
    sizes = [min(part, rows - start) for start in range(0, rows, part)]
    names = each(theirs + "ngram_embedding.shard_{e}.weight", e=len(sizes))
    yield row(names, f"embed/tables_{number}", join(*sizes))
