"""Linear attention and delta rules by flash-linear-attention, RWKV-7 by its authors, two layers of transformers."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from scripts.golden.recipe import TORCH, Recipe, with_parameters, with_torch_gradients

FLA = "fla-org/flash-linear-attention"
# What RWKV's time mixing calls; its own versions are lambdas beside it.
RWKV = """
import numpy as np
N_HEAD, HEAD_SIZE = 2, 4
def sigmoid(x):
  return 1 / (1 + np.exp(-x))
def group_norm(x, w, b):
  x = x - x.mean(axis=1, keepdims=True)
  return (x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 64e-5)).ravel() * w + b
"""
B, T, H, K, P = 2, 37, 2, 4, 5


def tokens(rng: np.random.Generator, *, heads_first: bool = False, decay: str = "channel") -> dict[str, np.ndarray]:
  """Draws queries, keys of length 1, values, log decays by channel or head, steps in [0, 2], a nonzero state."""
  k = rng.standard_normal((B, T, H, K))
  inputs = {
    "q": rng.standard_normal((B, T, H, K)),
    "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
    "v": rng.standard_normal((B, T, H, P)),
    "g": -(10.0 ** rng.uniform(-3, 0.5, (B, T, H, K) if decay == "channel" else (B, T, H))),
    "beta": rng.uniform(0, 2, (B, T, H)),
  }
  inputs = {name: value.swapaxes(1, 2) if heads_first else value for name, value in inputs.items()}
  return inputs | {"S": rng.standard_normal((B, H, K, P))}


def pick(inputs: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
  return {name: inputs[name] for name in names}


def gla(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs gated linear attention; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(0)
  run = lambda q, k, v, g, S: official["naive_recurrent_gla"](q, k, v, g, S, True)
  return with_torch_gradients(run, pick(tokens(rng), "q", "k", "v", "g", "S"), rng)


def rwkv6(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs the recurrence with the bonus of the current token."""
  rng = np.random.default_rng(1)
  run = lambda q, k, v, g, S, u: official["naive_recurrent_rwkv6"](q, k, v, g, u, 1.0, S, True)
  inputs = pick(tokens(rng, heads_first=True), "q", "k", "v", "g", "S") | {"u": rng.standard_normal((H, K))}
  return with_torch_gradients(run, inputs, rng)


def delta_rule(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs DeltaNet; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(2)
  run = lambda q, k, v, beta, S: official["delta_rule_recurrence"](q, k, v, beta, S)
  return with_torch_gradients(run, pick(tokens(rng, heads_first=True), "q", "k", "v", "beta", "S"), rng)


def gated_delta_rule(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Gated DeltaNet; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(3)
  run = lambda q, k, v, g, beta, S: official["naive_recurrent_gated_delta_rule"](q, k, v, beta, g, None, S, True)
  return with_torch_gradients(run, tokens(rng, decay="head"), rng)


def kda(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Kimi delta attention; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(4)
  run = lambda q, k, v, g, beta, S: official["naive_recurrent_kda"](q, k, v, g, beta, None, S, True)
  return with_torch_gradients(run, tokens(rng), rng)


def gated_delta_product(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Gated DeltaProduct with three keys a token, one after the other on the axis of time."""
  rng, many = np.random.default_rng(7), 3
  one, more = tokens(rng, decay="head"), [tokens(rng, decay="head") for _ in range(many)]
  several = {
    name: np.stack([z[name] for z in more], axis=2).reshape(B, T * many, *one[name].shape[2:]) for name in "kv"
  }
  beta = np.stack([z["beta"] for z in more], axis=2).reshape(B, T * many, H)
  run = lambda q, k, v, g, beta, S: official["naive_recurrent_gated_delta_product"](
    q, k, v, g, beta, 1.0, None, S, True, many
  )
  return with_torch_gradients(run, pick(one, "q", "g", "S") | several | {"beta": beta}, rng)


def gated_delta_net2(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs Gated DeltaNet-2; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(8)
  run = lambda q, k, v, g, b, w, S: official["naive_recurrent_gdn2"](q, k, v, g, b, w, None, S, True)
  gates = {"b": rng.uniform(0, 1, (B, T, H, K)), "w": rng.uniform(0, 1, (B, T, H, P))}
  return with_torch_gradients(run, pick(tokens(rng), "q", "k", "v", "g", "S") | gates, rng)


def forgetting_attention(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs forgetting attention of four heads of queries to two of keys, in a window."""
  rng = np.random.default_rng(9)
  inputs = {name: rng.standard_normal((B, T, heads, K)) for name, heads in (("q", 4), ("k", 2), ("v", 2))}
  inputs["g"] = -(10.0 ** rng.uniform(-3, 0.5, (B, T, 4)))
  run = lambda q, k, v, g: (official["naive_forgetting_attn"](q, k, v, g, None, 11),)
  return with_torch_gradients(run, inputs, rng)


def dplr(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs a diagonal plus any matrix of rank 1, as in RWKV-7; queries are divided by sqrt(k) there."""
  rng = np.random.default_rng(5)
  run = lambda q, k, v, g, S, w, u: official["dplr_recurrence"](q, k, v, w, u, g, S)
  inputs = pick(tokens(rng, heads_first=True), "q", "k", "v", "g", "S")
  w = inputs["k"][..., ::-1]
  return with_torch_gradients(run, inputs | {"w": w, "u": -rng.uniform(0, 1, w.shape) * w}, rng)


def rwkv7(official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs RWKV-7's whole time mixing in a later layer, from a state that is not zero, without gradients."""
  rng = np.random.default_rng(6)
  d, rank = H * K, 3
  row, square, down, up = (d,), (d, d), (d, rank), (rank, d)
  shapes = {name: row for name in ("mr", "mw", "mk", "mv", "ma", "mg", "w_bias")} | {"r_k": (H, K)}
  shapes |= {"Ww1": down, "Ww2": up, "Wa1": down, "Wa2": up, "a_bias": row, "Wg1": down, "Wg2": up}
  shapes |= {"Wv2": up, "Wv1": down, "v_bias": row, "k_k": row, "k_a": row}
  shapes |= {"Wr": square, "Wk": square, "Wv": square, "Wo": square, "ln_w": row, "ln_b": row}
  single = lambda *shape: (0.7 * rng.standard_normal(shape)).astype(np.float32)
  inputs = {name: single(*shape) for name, shape in shapes.items()}
  x, v0, last, S = single(T, d), single(T, d), single(d), single(H, K, K)
  outputs, state = [], (last, S)
  for token, first in zip(x, v0):
    y, _, *state = official["time_mixing"](token, first, *state, list(inputs.values()))
    outputs.append(y)
  entries = {f"in/{name}": value for name, value in (inputs | {"x": x, "v0": v0, "last": last, "S": S}).items()}
  return entries | {"out/0": np.stack(outputs), "out/1": state[0], "out/2": state[1], "weights": np.zeros(())}


class Layer(NamedTuple):
  module: str  # under transformers.models
  cls: str
  config: str
  sizes: dict[str, Any]


# Keys of 8 numbers: some of those of 3 are so short that float32 does not know gradients through their length to 1e-5.
LAYERS = {
  "kimi_delta": Layer(
    "kimi_linear.modeling_kimi_linear",
    "KimiLinearDeltaAttention",
    "KimiLinearConfig",
    dict(linear_num_heads=2, linear_head_dim=8, linear_conv_kernel_dim=3, rms_norm_eps=1e-5),
  ),
  "qwen3_next_delta": Layer(
    "qwen3_next.modeling_qwen3_next",
    "Qwen3NextGatedDeltaNet",
    "Qwen3NextConfig",
    dict(
      linear_num_key_heads=2,
      linear_num_value_heads=4,
      linear_key_head_dim=8,
      linear_value_head_dim=4,
      linear_conv_kernel_dim=4,
      rms_norm_eps=1e-6,
    ),
  ),
}


def layer_of(layer: Layer, official: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Runs one layer at spread-out parameters: outputs and the gradients in all of them."""
  del official
  import transformers

  rng = np.random.default_rng(0)
  d, t = 8, 70  # more tokens than one of their chunks has
  depth = dict(num_hidden_layers=4, layer_types=["linear_attention"] * 4)
  config = getattr(transformers, layer.config)(hidden_size=d, **depth, **layer.sizes)
  module = getattr(import_module(f"transformers.models.{layer.module}"), layer.cls)(config, 0)

  def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if "A_log" in name:
      return np.log(rng.uniform(0.05, 1, shape))
    return 1 + 0.3 * rng.standard_normal(shape) if "norm" in name else 0.4 * rng.standard_normal(shape)

  inputs = {name: draw(name, tuple(value.shape)) for name, value in module.named_parameters()}

  def run(x, **parameters):
    return (with_parameters(module, parameters, lambda: module(x)),)

  return with_torch_gradients(run, {"x": rng.standard_normal((B, t, d)), **inputs}, rng)


def _fla(file: str, name: str, numbers: Callable) -> Recipe:
  return Recipe(FLA, {f"fla/ops/{file}": (name,)}, TORCH, numbers)


RECIPES = {
  "delta_rule": _fla("delta_rule/naive.py", "delta_rule_recurrence", delta_rule),
  "dplr": _fla("generalized_delta_rule/dplr/naive.py", "dplr_recurrence", dplr),
  "forgetting_attention": _fla("forgetting_attn/naive.py", "naive_forgetting_attn", forgetting_attention),
  "gated_delta_net2": _fla("gdn2/naive.py", "naive_recurrent_gdn2", gated_delta_net2),
  "gated_delta_product": _fla(
    "gated_delta_product/naive.py", "naive_recurrent_gated_delta_product", gated_delta_product
  ),
  "gated_delta_rule": _fla("gated_delta_rule/naive.py", "naive_recurrent_gated_delta_rule", gated_delta_rule),
  "gla": _fla("gla/naive.py", "naive_recurrent_gla", gla),
  "kda": _fla("kda/naive.py", "naive_recurrent_kda", kda),
  "rwkv6": _fla("rwkv6/recurrent_naive.py", "naive_recurrent_rwkv6", rwkv6),
  "rwkv7": Recipe("BlinkDL/RWKV-LM", {"RWKV-v7/rwkv_v7_numpy.py": ("time_mixing",)}, RWKV, rwkv7),
} | {
  name: Recipe("huggingface/transformers", {}, "", partial(layer_of, layer), library="transformers")
  for name, layer in LAYERS.items()
}
