"""Mamba, Mamba-2 and Mamba-3 as the authors' own code, state-spaces/mamba, saves them; its config names no model_type.

Attention in `attn_layer_idx` has no convolution here: mamba2attn-2.7b, whose `attn_cfg` has `d_conv`, is refused. The
authors' loader takes a pytorch_model.bin alone: what is saved here is for transformers' converters and for `load`.
"""

import math
from typing import Any

from hybrids.recipes.recipe import language_model
from interop.config import Config
from interop.rows import Row, dense, depthwise_conv, elementwise, layer_norm, row, split, turn

# how their kernels run
IGNORED = "fused_add_norm residual_in_fp32"
# a copy of a table that is tied
SKIPPED = (r"lm_head\.weight",)
# initial values, and how their kernels run
UNUSED = (
  "dt_min dt_max dt_init dt_scale dt_init_floor use_fast_path A_init_range conv_init chunk_size use_mem_eff_path "
  "dropout fuse_pregate_headwise_norm"
)
# the MLP's width is rounded up to a multiple
MULTIPLE = 128
EPS = 1e-5


def numbers(config: Config) -> list[int]:
  """Returns their layer of each letter."""
  return [i for i in range(config.get("n_layer")) for _ in range(1 + bool(config.get("d_intermediate", 0)))]


def vocab(config: Config) -> int:
  """Returns the rows of the table, which is padded."""
  multiple = config.get("pad_vocab_size_multiple", 8)
  return -(-config.get("vocab_size") // multiple) * multiple


def sections(config: Config) -> dict[str, Any]:
  """Returns the model section."""
  width, inner = config.get("d_model"), config.get("d_intermediate", 0)
  at = set(config.get("attn_layer_idx", []))
  pattern = "".join("ma"[i in at] + ("-" if inner else "") for i in range(config.get("n_layer")))
  mixer = _mixer(config)
  letters = {
    "m": {"Mamba1": _mamba1, "Mamba2": _mamba2, "Mamba3": _mamba3}[_kind(mixer)](mixer, width),
    "a": _attention(config.inside("attn_cfg"), width) if at else {},
    "-": dict(name="gated_mlp", inner=-(-inner // MULTIPLE) * MULTIPLE),
  }
  return language_model(
    width=width,
    pattern=pattern,
    letters=letters,
    norm="rms" if config.get("rms_norm", True) else "layer",
    norm_eps=EPS,
    head=dict(tie=config.get("tie_embeddings", True)),
  )


def rows(config: Config) -> list[Row]:
  """Returns the mapping table."""
  layer = "backbone.layers.{i}."
  norm = (
    (lambda theirs, ours: [row(f"{theirs}.weight", f"{ours}/scale")]) if config.get("rms_norm", True) else layer_norm
  )
  at, mixer = set(config.get("attn_layer_idx", [])), _mixer(config)
  attends, mixes = bool(at), len(at) < config.get("n_layer")
  letters = "m" * mixes + "a" * attends
  found = [
    row("backbone.embedding.weight", "embed/embedding"),
    *norm(layer + "norm", f"{letters}/norm"),
    *({"Mamba1": _rows1, "Mamba2": _rows2, "Mamba3": _rows3}[_kind(mixer)](mixer, layer + "mixer.") if mixes else []),
    *(_attention_rows(config.inside("attn_cfg"), config.get("d_model"), layer + "mixer.") if attends else []),
    *norm("backbone.norm_f", "body/final_norm"),
  ]
  if inner := config.get("d_intermediate", 0):
    whole = -(-inner // MULTIPLE) * MULTIPLE
    found += [
      *norm(layer + "norm2", "-/norm"),
      row(layer + "mlp.fc1.weight", ("-/mixer/in_proj/kernel", "-/mixer/gate_proj/kernel"), split(whole, whole), turn),
      *dense(layer + "mlp.fc2", "-/mixer/out_proj"),
    ]
  return found + ([] if config.get("tie_embeddings", True) else [row("lm_head.weight", "head/table")])


def _mixer(config: Config) -> Config:
  return Config(config.get("ssm_cfg", {}), f"{config.where}: ssm_cfg")


def _kind(mixer: Config) -> str:
  return mixer.expect("layer", "Mamba1", "Mamba2", "Mamba3")


def _mamba1(mixer: Config, width: int) -> dict[str, Any]:
  rank = mixer.get("dt_rank", "auto")
  fields = dict(
    name="mamba",
    state=mixer.get("d_state", 16),
    expand=mixer.get("expand", 2),
    taps=mixer.get("d_conv", 4),
    dt_rank=math.ceil(width / 16) if rank == "auto" else rank,
    bias=mixer.get("bias", False),
    conv_bias=mixer.get("conv_bias", True),
  )
  mixer.finish(UNUSED)
  return fields


def _rows1(mixer: Config, theirs: str) -> list[Row]:
  bias = mixer.get("bias", False)
  return [
    *dense(theirs + "in_proj", "m/mixer/in_proj", bias=bias),
    *depthwise_conv(theirs + "conv1d", "m/mixer/conv", bias=mixer.get("conv_bias", True)),
    *dense(theirs + "x_proj", "m/mixer/x_proj"),
    *dense(theirs + "dt_proj", "m/mixer/dt_proj", bias=True),
    row(theirs + "A_log", "m/mixer/A_log"),
    row(theirs + "D", "m/mixer/D"),
    *dense(theirs + "out_proj", "m/mixer/out_proj", bias=bias),
  ]


def _mamba2(mixer: Config, width: int) -> dict[str, Any]:
  least, most = mixer.get("dt_limit", [0.0, math.inf])
  norm = "norm_first" if mixer.get("norm_before_gate", False) else "gate_first"
  fields = dict(
    name="mamba2",
    state=mixer.get("d_state", 128),
    expand=mixer.get("expand", 2),
    ssm_width=mixer.get("d_ssm", mixer.get("expand", 2) * width),
    head_size=mixer.get("headdim", 64),
    groups=mixer.get("ngroups", 1),
    taps=mixer.get("d_conv", 4),
    norm=norm if mixer.get("rmsnorm", True) else "none",
    D_per="channel" if mixer.get("D_has_hdim", False) else "head",
    bias=mixer.get("bias", False),
    conv_bias=mixer.get("conv_bias", True),
    dt_least=least,
    dt_most=most,
    norm_eps=EPS,
  )
  mixer.finish(UNUSED)
  return fields


def _rows2(mixer: Config, theirs: str) -> list[Row]:
  bias = mixer.get("bias", False)
  return [
    *dense(theirs + "in_proj", "m/mixer/in_proj", bias=bias),
    *depthwise_conv(theirs + "conv1d", "m/mixer/conv", bias=mixer.get("conv_bias", True)),
    *(row(theirs + name, f"m/mixer/{name}") for name in ("dt_bias", "A_log", "D")),
    *([row(theirs + "norm.weight", "m/mixer/gated_norm/scale")] if mixer.get("rmsnorm", True) else []),
    *dense(theirs + "out_proj", "m/mixer/out_proj", bias=bias),
  ]


def _mamba3(mixer: Config, width: int) -> dict[str, Any]:
  fields = dict(
    name="mamba3",
    state=mixer.get("d_state", 128),
    expand=mixer.get("expand", 2),
    head_size=mixer.get("headdim", 64),
    groups=mixer.get("ngroups", 1),
    rank=mixer.get("mimo_rank", 4) if mixer.get("is_mimo", False) else 1,
    rope_fraction=mixer.get("rope_fraction", 0.5),
    A_floor=mixer.get("A_floor", 1e-4),
    out_norm=mixer.get("is_outproj_norm", False),
    norm_eps=EPS,
  )
  mixer.finish(f"{UNUSED} mimo_rank")
  return fields


def _rows3(mixer: Config, theirs: str) -> list[Row]:
  # (heads, rank, size) there, (rank, heads, size) here
  by_rank = elementwise(lambda x: x.swapaxes(0, 1), lambda x: x.swapaxes(0, 1))
  names = {"B_bias": "B_bias", "C_bias": "C_bias"}
  if mixer.get("is_mimo", False) and mixer.get("mimo_rank", 4) > 1:
    names |= {"mimo_x": "mimo_u", "mimo_z": "mimo_z", "mimo_o": "mimo_o"}
  return [
    *dense(theirs + "in_proj", "m/mixer/in_proj"),
    row(theirs + "dt_bias", "m/mixer/dt_bias"),
    row(theirs + "D", "m/mixer/D"),
    *(row(f"{theirs}{name}.weight", f"m/mixer/{name}/scale") for name in ("B_norm", "C_norm")),
    *(row(theirs + name, f"m/mixer/{ours}", by_rank) for name, ours in names.items()),
    *([row(theirs + "norm.weight", "m/mixer/gated_norm/scale")] if mixer.get("is_outproj_norm", False) else []),
    *dense(theirs + "out_proj", "m/mixer/out_proj"),
  ]


def _sizes(attention: Config, width: int) -> tuple[int, int, int]:
  heads = attention.get("num_heads")
  return heads, attention.get("num_heads_kv", heads), attention.get("head_dim", width // heads)


def _attention(attention: Config, width: int) -> dict[str, Any]:
  heads, kv_heads, size = _sizes(attention, width)
  for key, known in (("d_conv", 0), ("mlp_dim", 0), ("causal", True)):
    if attention.get(key, False if key == "causal" else 0) != known:
      raise attention.refuse(key, f"{known} to be read here")
  turned = attention.get("rotary_emb_dim", 0)
  turns = dict(
    position="rope",
    theta=float(attention.get("rotary_emb_base", 1e4)),
    rotary=turned / size,
    layout="interleaved" if attention.get("rotary_emb_interleaved", False) else "half",
  )
  into, out = attention.get("qkv_proj_bias", True), attention.get("out_proj_bias", True)
  fields = dict(
    name="softmax",
    heads=heads,
    kv_heads=kv_heads,
    head_size=size,
    scale=attention.get("softmax_scale", size**-0.5),
    bias={(True, True): "all", (True, False): "qkv", (False, True): "out", (False, False): "none"}[into, out],
    **(turns if turned else {}),
  )
  attention.finish("")
  return fields


def _attention_rows(attention: Config, width: int, theirs: str) -> list[Row]:
  heads, kv_heads, size = _sizes(attention, width)
  parts = split(heads * size, kv_heads * size, kv_heads * size)
  ours = lambda leaf: [f"a/mixer/{name}_proj/{leaf}" for name in "qkv"]
  return [
    row(theirs + "in_proj.weight", ours("kernel"), parts, turn),
    *([row(theirs + "in_proj.bias", ours("bias"), parts)] if attention.get("qkv_proj_bias", True) else []),
    *dense(theirs + "out_proj", "a/mixer/out_proj", bias=attention.get("out_proj_bias", True)),
  ]
