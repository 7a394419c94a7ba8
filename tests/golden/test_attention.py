"""Softmax and latent attention beside layers of transformers, and xPos beside torchscale's."""

import jax.numpy as jnp
import pytest

from hybrids.mixer import build
from kernels.attention import attention
from layers.positions import rope, xpos_decays
from scripts.golden.attention import START
from tests.golden.compare import check, dense, read


def separate(p):
  """Maps for queries, keys, values and out as ours, perhaps with norms."""
  found = {f"{name}_proj": dense(p, f"{theirs}_proj") for name, theirs in zip(("q", "k", "v", "out"), "qkvo")}
  norms = [name for name in ("q_norm", "k_norm") if f"{name}.weight" in p]
  return found | {name: {"scale": p[f"{name}.weight"]} for name in norms}


def fused(heads):
  """Of maps whose rows are a head's queries, keys and values, then the next head's."""

  def params(p):
    W, b = p["query_key_value.weight"], p["query_key_value.bias"]
    W, b = W.reshape(heads, 3, -1, W.shape[1]), b.reshape(heads, 3, -1)
    part = lambda i: {"kernel": W[:, i].reshape(-1, W.shape[-1]).T, "bias": b[:, i].ravel()}
    return {f"{name}_proj": part(i) for i, name in enumerate("qkv")} | {"out_proj": dense(p, "dense")}

  return params


def gpt2(p):
  W, b = jnp.split(p["c_attn.weight"], 3, axis=1), jnp.split(p["c_attn.bias"], 3)
  found = {f"{name}_proj": {"kernel": W[i], "bias": b[i]} for i, name in enumerate("qkv")}
  return found | {"out_proj": {"kernel": p["c_proj.weight"], "bias": p["c_proj.bias"]}}


def qwen3_next(p):
  """Rows are a head's queries, then its gates; norms count from 1."""
  q, gate = jnp.split(p["q_proj.weight"].reshape(4, 16, -1), 2, axis=1)
  flat = lambda W: {"kernel": W.reshape(-1, W.shape[-1]).T}
  found = separate(p | {"q_proj.weight": q.reshape(32, -1)}) | {"gate_proj": flat(gate)}
  return found | {name: {"scale": 1 + p[f"{name}.weight"]} for name in ("q_norm", "k_norm")}


GROUPED = dict(heads=4, kv_heads=2, head_size=6, position="rope")
# kind -> our arguments, and our parameters of theirs
LAYERS = {
  "llama": (GROUPED, separate),
  "linear": (GROUPED | dict(scaling=dict(rule="linear", factor=4.0)), separate),
  "yarn": (GROUPED | dict(head_size=16, scaling=dict(rule="yarn", factor=4.0, trained=300)), separate),
  "gpt_neox": (dict(heads=2, position="rope", rotary=0.5, bias="all"), fused(2)),
  "gpt2": (dict(heads=2, bias="all"), gpt2),
  "qwen3": (GROUPED | dict(qk_norm="head"), separate),
  "olmo2": (dict(heads=2, kv_heads=1, position="rope", qk_norm="all"), separate),
  "qwen3_next": (GROUPED | dict(head_size=8, rotary=0.25, qk_norm="head", gate="entry"), qwen3_next),
  "gemma2": (GROUPED | dict(softcap=2.0, window=5), separate),
  "bloom": (dict(heads=4, position="alibi", bias="all"), fused(4)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_attention_is_the_one_of_transformers(kind):
  """With two documents in the second row."""
  given, *rest = read("softmax", f"{kind}/")
  arguments, params = LAYERS[kind]
  mixer = build("softmax", width=8, **arguments)
  reset = jnp.zeros(given["x"].shape[:2], bool).at[1, START].set(True)
  check(lambda p: (mixer.apply({"params": params(p)}, p["x"], reset=reset),), given, *rest)


def latent(p):
  """Their maps to the latent and the shared key stand together, and those to keys and values of each head."""
  down, up = p["kv_a_proj_with_mqa.weight"], p["kv_b_proj.weight"].reshape(2, 9, 6)
  flat = lambda W: W.reshape(-1, 6).T
  params = {"c_proj": {"kernel": down[:6].T}, "r_proj": {"kernel": down[6:].T}, "out_proj": dense(p, "o_proj")}
  params |= {"c_norm": {"scale": p["kv_a_layernorm.weight"]}, "k_up": flat(up[:, :4]), "v_up": flat(up[:, 4:])}
  if "q_proj.weight" in p:
    return params | {"q_proj": dense(p, "q_proj")}
  return (
    params
    | {"q_down": dense(p, "q_a_proj"), "q_norm": {"scale": p["q_a_layernorm.weight"]}}
    | {"q_up": dense(p, "q_b_proj")}
  )


@pytest.mark.parametrize("way", ["expanded", "absorbed"])
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_latent_attention_is_deepseeks(kind, way):
  """V2 with queries of the input; V3 with queries of a latent, and YaRN."""
  given, *rest = read("mla", f"{kind}/")
  options = dict(v2={}, v3=dict(q_rank=6, scaling=dict(rule="yarn", factor=4.0, trained=300, mscale=0.7)))[kind]
  mixer = build("mla", width=8, heads=2, rank=6, head_size=4, rope_size=16, value_size=5, **options)
  reset = jnp.zeros(given["x"].shape[:2], bool).at[1, START].set(True)

  def run(p):
    variables = {"params": latent(p)}
    if way == "expanded":
      return (mixer.apply(variables, p["x"], reset=reset),)
    return (mixer.apply(variables, p["x"], mixer.init_state(2, 17), reset=reset, method="prefill")[0],)

  check(run, given, *rest)


def test_xpos_is_torchscales():
  def run(p):
    positions = jnp.arange(48)[None] * jnp.ones((2, 1), int)
    q, k = (rope(p[name][:, :, None], positions, layout="interleaved") for name in "qk")
    y = attention(q, k, p["v"][:, :, None], scale=1.0, decays=xpos_decays(8, layout="interleaved"))
    return (y[:, :, 0],)

  check(run, *read("xpos"))
