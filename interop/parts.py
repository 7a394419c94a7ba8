"""Rows of layers that many families share under the same names, and what of a config describes them."""

from typing import Any

from interop.config import Config
from interop.rows import Row, dense, depthwise_conv, each, row, split, stack, turn


def attention(theirs: str, ours: str, *, bias: bool = False) -> list[Row]:
  """Returns the rows of attention with four maps."""
  names = (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("o_proj", "out_proj"))
  return [line for name, own in names for line in dense(f"{theirs}.{name}", f"{ours}/{own}", bias=bias)]


def gated_mlp(theirs: str, ours: str, *, bias: bool = False) -> list[Row]:
  """Returns the rows of a gated MLP."""
  names = (("gate_proj", "gate_proj"), ("up_proj", "in_proj"), ("down_proj", "out_proj"))
  return [line for name, own in names for line in dense(f"{theirs}.{name}", f"{ours}/{own}", bias=bias)]


def mamba2(theirs: str, ours: str, *, bias: bool, conv_bias: bool, norm: bool = True) -> list[Row]:
  """Returns the rows of Mamba-2."""
  return [
    *dense(f"{theirs}.in_proj", f"{ours}/in_proj", bias=bias),
    *depthwise_conv(f"{theirs}.conv1d", f"{ours}/conv", bias=conv_bias),
    *(row(f"{theirs}.{name}", f"{ours}/{name}") for name in ("dt_bias", "A_log", "D")),
    *([row(f"{theirs}.norm.weight", f"{ours}/gated_norm/scale")] if norm else []),
    *dense(f"{theirs}.out_proj", f"{ours}/out_proj", bias=bias),
  ]


def attention_fields(config: Config, **more: Any) -> dict[str, Any]:
  """Returns the fields of attention that most families' configs call alike, and those in `more`."""
  return dict(bias="all" if config.get("attention_bias", False) else "none", **more)


def mamba2_fields(config: Config, *, inner: int, eps: float) -> dict[str, Any]:
  """Returns the fields of Mamba-2 whose keys begin with `mamba_`, as in Bamba and all that followed it.

  Raises:
    Mistake: heads and their size do not make the inner width.
  """
  heads = config.get("mamba_n_heads", 128)
  size = config.get("mamba_d_head", "auto")
  size = inner // heads if size == "auto" else size
  if heads * size != inner:
    raise config.refuse("mamba_n_heads", f"the inner width {inner} over mamba_d_head={size}")
  least, most = config.get("time_step_limit", [0.0, float("inf")])
  return dict(
    state=config.get("mamba_d_state", 256),
    inner=inner,
    head_size=size,
    groups=config.get("mamba_n_groups", 1),
    taps=config.get("mamba_d_conv", 4),
    bias=config.get("mamba_proj_bias", False),
    conv_bias=config.get("mamba_conv_bias", True),
    dt_least=least,
    dt_most=most,
    norm_eps=eps,
  )


def experts(theirs: str, ours: str, count: int, names: str = "gate_proj up_proj down_proj") -> list[Row]:
  """Returns the rows of a router and of experts that are stored one by one.

  Args:
    theirs: where "gate" and "experts" stand.
    names: of the maps of an expert: its gate, into it and out of it; without a gate the latter two.
  """
  own = ["gate_proj", "in_proj", "out_proj"][-len(names.split()) :]
  numbered = lambda name: each(f"{theirs}.experts.{{e}}.{name}.weight", e=count)
  return [
    row(f"{theirs}.gate.weight", f"{ours}/router", turn),
    *(row(numbered(name), f"{ours}/{one}", turn, stack) for name, one in zip(names.split(), own, strict=True)),
  ]


def stacked_experts(theirs: str, ours: str, inner: int) -> list[Row]:
  """Returns the rows of gated experts that are stored together, the maps of gates and into experts as one."""
  both = [f"{ours}/gate_proj", f"{ours}/in_proj"]
  return [
    row(f"{theirs}.gate_up_proj", both, split(inner, inner, axis=1), turn),
    row(f"{theirs}.down_proj", f"{ours}/out_proj", turn),
  ]


def table(config: Config, *, tie: bool) -> list[Row]:
  """Returns the row of a table of the head's own."""
  return [] if config.get("tie_word_embeddings", tie) else [row("lm_head.weight", "head/table")]
