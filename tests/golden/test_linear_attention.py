"""Agreement with numbers of flash-linear-attention's and RWKV's references and of transformers' layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention.recurrent.gated_delta_net import GatedDeltaNet
from attention.recurrent.gated_delta_product import GatedDeltaProduct
from attention.recurrent.kda import KDA
from attention.recurrent.rwkv7 import RWKV7, State
from kernels.attention import attention
from kernels.attention.forgetting import with_sums
from kernels.decays import running_sums
from kernels.delta_rule import delta_rule
from kernels.gated_linear_attention import gated_linear_attention
from layers.mixer import Where
from tests.golden.compare import check, near, read, same


def swapped(p):
  """Time before heads."""
  return {name: value.swapaxes(1, 2) if name not in ("S", "u", "beta") else value for name, value in p.items()}


def test_gated_linear_attention_is_glas():
  def run(p):
    return gated_linear_attention(p["q"] / 2, p["k"], p["v"], p["g"], p["S"])

  check(run, *read("gla"))


def test_gated_linear_attention_with_a_bonus_is_rwkv_6s():
  def run(p):
    z = swapped(p)
    y, last = gated_linear_attention(z["q"], z["k"], z["v"], z["g"], p["S"], p["u"])
    return y.swapaxes(1, 2), last

  check(run, *read("rwkv6"))


def test_delta_rule_is_delta_nets():
  def run(p):
    z = swapped(p)
    y, last = delta_rule(z["q"] / 2, p["beta"].swapaxes(1, 2)[..., None] * z["k"], z["v"], z["k"], p["S"])
    return y.swapaxes(1, 2), last

  check(run, *read("delta_rule"))


@pytest.mark.parametrize("name", ["gated_delta_rule", "kda"])
def test_delta_rule_with_decays_is_gated_delta_nets_and_kdas(name):
  def run(p):
    log_a = p["g"] if name == "kda" else p["g"][..., None]
    k = p["beta"][..., None] * p["k"]
    return delta_rule(p["q"] / 2, k, p["v"], jnp.exp(log_a) * p["k"], p["S"], None, log_a)

  check(run, *read(name))


def test_several_keys_a_token_are_gated_delta_products():
  products = 3

  def run(p):
    apart = lambda z: z.reshape(len(z), -1, products * z.shape[2], *z.shape[3:])
    q, k, v, beta = p["q"], apart(p["k"]), apart(p["v"]), apart(p["beta"])
    return GatedDeltaProduct(width=8, products=products).rule(q, k, v, beta, p["g"], p["S"], Where())

  check(run, *read("gated_delta_product"))


def test_delta_rule_with_gates_by_channel_is_gated_delta_net_2s():
  def run(p):
    return delta_rule(p["q"] / 2, p["k"], p["w"] * p["v"], jnp.exp(p["g"]) * p["b"] * p["k"], p["S"], None, p["g"])

  check(run, *read("gated_delta_net2"))


def test_attention_with_sums_of_gates_is_forgetting_attention():
  def run(p):
    sums = running_sums(p["g"].reshape(*p["g"].shape[:2], 2, 2), axis=1)
    q, k = with_sums(p["q"], p["k"], sums, sums, scale=0.5)
    return (attention(q, k, p["v"], scale=1.0, window=11),)

  check(run, *read("forgetting_attention"))


def test_delta_rule_with_any_matrix_of_rank_1_is_theirs():
  def run(p):
    z = swapped(p) | {"u": p["u"].swapaxes(1, 2)}
    y, last = delta_rule(z["q"] / 2, z["k"], z["v"], z["w"], p["S"], z["u"], z["g"])
    return y.swapaxes(1, 2), last

  check(run, *read("dplr"))


def transposed(W):
  return {"kernel": W.T}


def test_kda_is_the_layer_of_kimi_linear():
  def params(p):
    low = lambda down, up: {"down": transposed(p[f"{down}.weight"]), "up": transposed(p[f"{up}.weight"])}
    qkv = {name: transposed(p[f"{name}.weight"]) for name in ("q_proj", "k_proj", "v_proj")}
    return {
      "qkv": qkv | {"conv": transposed(p["conv1d.weight"][:, 0])},
      "b_proj": transposed(p["b_proj.weight"]),
      "a_proj": low("forget_gate.f_a_proj", "forget_gate.f_b_proj"),
      "g_proj": low("g_a_proj", "g_b_proj"),
      "A_log": p["forget_gate.A_log"].ravel(),
      "dt_bias": p["forget_gate.dt_bias"],
      "gated_norm": {"scale": p["o_norm.weight"]},
      "out_proj": transposed(p["o_proj.weight"]),
    }

  same(KDA(width=8, heads=2, head_size=8, taps=3), params, "kimi_delta")


def test_gated_delta_net_is_the_layer_of_qwen3_next():
  """Whose maps for one head of keys and its two of values stand together."""
  module = GatedDeltaNet(width=8, heads=2, value_heads=4, head_size=8, expand_v=0.5, norm_eps=1e-6)

  def params(p):
    by_head = lambda name: p[f"{name}.weight"].reshape(2, -1, 8)
    q, k, v, g = jnp.split(by_head("in_proj_qkvz"), [8, 16, 24], axis=1)
    b, a = jnp.split(by_head("in_proj_ba"), 2, axis=1)
    flat = lambda W: transposed(W.reshape(-1, 8))
    qkv = {"q_proj": flat(q), "k_proj": flat(k), "v_proj": flat(v), "conv": transposed(p["conv1d.weight"][:, 0])}
    found = {"qkv": qkv, "a_proj": flat(a), "b_proj": flat(b), "g_proj": flat(g), "A_log": p["A_log"]}
    found |= {"dt_bias": p["dt_bias"], "gated_norm": {"scale": p["norm.weight"]}}
    return found | {"out_proj": transposed(p["out_proj.weight"])}

  same(module, params, "qwen3_next_delta")


def test_rwkv_7_is_the_numpy_reference():
  """Its whole time mixing in a later layer, parameter by parameter."""
  p, _, outputs, _ = read("rwkv7")
  kernel = lambda W: {"kernel": W}
  low = lambda down, up, bias=None: {"down": kernel(down), "up": kernel(up) | ({} if bias is None else {"bias": bias})}
  params = {
    "mu": np.stack([p[name] for name in ("mr", "mw", "mk", "mv", "ma", "mg")]),
    "w_lora": low(p["Ww1"], p["Ww2"], p["w_bias"]),
    "a_lora": low(p["Wa1"], p["Wa2"], p["a_bias"]),
    "v_lora": low(p["Wv1"], p["Wv2"], p["v_bias"]),
    "g_lora": low(p["Wg1"], p["Wg2"]),
    "norm": {"scale": p["ln_w"], "bias": p["ln_b"]},
    "out_proj": kernel(p["Wo"].T),
    "r_k": p["r_k"].ravel(),
  }
  params |= {name: p[name] for name in ("k_k", "k_a")} | {f"{name}_proj": kernel(p[f"W{name}"].T) for name in "rkv"}
  module = RWKV7(width=8, head_size=4, w_rank=3, a_rank=3, v_rank=3, g_rank=3)
  state = State(S=jnp.asarray(p["S"][None].swapaxes(2, 3)), last=jnp.asarray(p["last"][None]))
  run = jax.jit(lambda x, side: module.apply({"params": params}, x, state, side=side, method="prefill"))
  y, after = run(p["x"][None], {"v_first": p["v0"][None]})
  for got, want in zip((y[0], after.last[0], after.S[0].swapaxes(1, 2)), outputs, strict=True):
    near(got, want, "y, the last token or the state")
