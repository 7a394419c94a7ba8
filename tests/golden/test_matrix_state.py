"""Agreement with numbers of torchscale, Based's authors, RWKV's, and of MiniMax and RWKV-4 in transformers."""

import jax
import jax.numpy as jnp
import pytest

from attention.recurrent.based import Based
from attention.recurrent.lightning import Lightning
from attention.recurrent.retnet import RetNet
from attention.recurrent.rwkv4 import RWKV4
from hybrids.channel.rwkv_channel import RWKVChannel
from tests.golden.compare import dense, same


def maps(p, **names):
  """Our kernels from torch's weights."""
  return {f"{ours}_proj": dense(p, theirs) for ours, theirs in names.items()}


@pytest.mark.parametrize("form, eps", [("parallel", 1e-9), ("chunks", 1e-9), ("steps", 1e-2)])
def test_retnet_is_torchscales_retention(form, eps):
  """Its three forms agree with each other only as far as its norm's eps is nothing; step by step it is ours at any."""
  params = lambda p: maps(p, q="q_proj", k="k_proj", v="v_proj", g="g_proj", out="out_proj")
  same(RetNet(width=8, heads=2, norm_eps=eps), params, "retention", f"{form}/")


def test_based_is_the_authors_linear_attention():
  params = lambda p: maps(p, q="proj_q", k="proj_k", v="proj_v", out="out_proj")
  same(Based(width=8, heads=2, key_size=3), params, "based")


def test_lightning_is_the_layer_of_minimax():
  """In whose map queries, keys and values of one head stand together; the rates come with the layer's place."""
  module = Lightning(width=8, heads=2, head_size=3, layer=1, depth=4)
  buffers = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8)))["buffers"]

  def params(p):
    qkv = p["qkv_proj.weight"].reshape(2, 3, 3, 8).swapaxes(0, 1).reshape(3, 6, 8)
    found = {f"{name}_proj": {"kernel": weight.T} for name, weight in zip("qkv", qkv)}
    return found | maps(p, g="output_gate", out="out_proj") | {"norm": {"scale": p["norm.weight"]}}

  same(module, params, "minimax_lightning", buffers=buffers)


def test_rwkv_4_is_the_attention_of_transformers():
  """Whose mixtures say how much of the token itself there is."""

  def params(p):
    mu = jnp.stack([1 - p[f"time_mix_{name}"].ravel() for name in ("key", "value", "receptance")])
    more = {"mu": mu, "log_w": p["time_decay"], "u": p["time_first"]}
    return maps(p, k="key", v="value", r="receptance", out="output") | more

  same(RWKV4(width=8), params, "hugging_face_rwkv4", "time/")


def test_rwkv_4s_channel_mixing_is_that_of_transformers():
  mu = lambda p: jnp.stack([1 - p[f"time_mix_{name}"].ravel() for name in ("key", "receptance")])
  params = lambda p: maps(p, k="key", v="value", r="receptance") | {"mu": mu(p)}
  same(RWKVChannel(width=8, version=4), params, "hugging_face_rwkv4", "channel/")


@pytest.mark.parametrize("version, inner, names", [(6, 24, ("time_maa_k", "time_maa_r")), (7, None, ("x_k",))])
def test_rwkv_6s_and_7s_channel_mixing_is_the_authors(version, inner, names):
  gate = {"r": "receptance"} if version == 6 else {}
  params = lambda p: maps(p, k="key", v="value", **gate) | {"mu": jnp.stack([p[name].ravel() for name in names])}
  same(RWKVChannel(width=8, version=version, inner=inner), params, "rwkv_channel", f"x0{version}0/")
