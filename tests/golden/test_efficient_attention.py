"""Agreement with numbers of others' efficient attention, and of the layers of transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from scripts.golden import efficient_attention as theirs
from tests.golden.compare import check, entries_of, read, same


def dense(p, name, *, bias=True):
  """A map that may have no bias there."""
  zero = {"bias": np.zeros(theirs.D, np.float32)} if bias else {}
  given = {"bias": p[f"{name}.bias"]} if f"{name}.bias" in p else {}
  return {"kernel": p[f"{name}.weight"].T} | zero | given


def maps(p, *, bias=True, **names):
  """Ours by theirs; those without a last map end with the heads' answers."""
  last = {"none.weight": np.eye(theirs.D, dtype=np.float32)}
  return {ours: dense(p | last, name, bias=bias) for ours, name in ({"out_proj": "none"} | names).items()}


BERT = dict(q_proj="query", k_proj="key", v_proj="value")


def on_heads(name, p, buffers=None, **kwargs):
  """A mixer whose maps pick q, k and v out of tokens that hold them side by side; its other heads have nothing."""
  mixer = build(name, width=3 * theirs.D, heads=3 * theirs.H, **kwargs)
  kernel = lambda i: {
    "kernel": np.eye(3 * theirs.D, k=-i * theirs.D, dtype=np.float32) * (np.arange(3 * theirs.D) < theirs.D)
  }
  params = {f"{name}_proj": kernel(i) for i, name in enumerate("qkv")} | {"out_proj": kernel(0)}
  x = jnp.concatenate([p[name].reshape(theirs.B, theirs.T, -1) for name in "qkv"], axis=-1)
  y = mixer.apply({"params": {"qkv": params}, "buffers": buffers or {}}, x)
  return (y[..., : theirs.D].reshape(p["v"].shape),)


@pytest.mark.parametrize("source", ["linear_transformer", "lra_linear_transformer"])
def test_linear_attention_to_all_tokens_is_the_authors_and_googles(source):
  check(lambda p: on_heads("linear_transformer", p, mask="full"), *read(source))


@pytest.mark.parametrize("kind", ["full", "causal", "relu"])
def test_performer_is_the_one_of_performer_pytorch(kind):
  """Features are given; nothing is added to those of softmax."""
  kwargs = dict(kernel="relu", mask="full") if kind == "relu" else dict(eps=0.0, mask=kind)
  run = lambda p: on_heads("performer", p, {"W": p["W"]}, features=theirs.FEATURES, **kwargs)
  check(run, *read("performer", f"{kind}/"))


@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_performer_is_googles(kernel, mask):
  """Features are given; nothing is added to those of softmax."""
  kwargs = dict(kernel=kernel, mask=mask) | (dict(eps=0.0) if kernel == "softmax" else {})
  run = lambda p: on_heads("performer", p, {"W": p["W"]}, features=theirs.FEATURES, **kwargs)
  check(run, *read("lra_performer", f"{kernel} {mask}/"))


def test_linformer_is_the_layer_of_lucidrains():
  mixer = build("linformer", width=theirs.D, heads=theirs.H, rank=5, max_len=theirs.T + 3, shared=False, bias=True)

  def params(p):
    qkv = maps(p, q_proj="to_q", k_proj="to_k", v_proj="to_v", out_proj="to_out")
    return {"qkv": qkv, "E": p["proj_k"], "F": p["proj_v"]}

  same(mixer, params, "linformer")


@pytest.mark.parametrize("kind", ["apart", "tied"])
def test_luna_is_the_authors_attention(kind):
  mixer = build("luna", width=theirs.D, heads=theirs.H, packed=3, tied=kind == "tied")

  def params(p):
    names = ("pk_proj", "pv_proj") if kind == "apart" else ("pc_proj",)
    found = {name: dense(p, name) for name in ("q_proj", "pq_proj", "out_proj", *names)} | {"P": p["P"]}
    if kind == "tied":
      found["pk_proj"] = found.pop("pc_proj")
    for ours, name in (("k", "k_proj"), ("v", "v_proj")) if kind == "apart" else (("k", "c_proj"),):
      found |= {f"{ours}_{what}": value for what, value in dense(p, name).items()}
    return found

  same(mixer, params, "luna", f"{kind}/")


def test_nystromformer_is_the_one_of_transformers():
  sizes = dict(landmarks=theirs.LANDMARKS, taps=theirs.TAPS, bias=True)
  mixer = build("nystromformer", width=theirs.D, heads=theirs.H, **sizes)
  params = lambda p: {"qkv": maps(p, **BERT), "kernel": p["conv.weight"][:, 0, :, 0].T}
  same(mixer, params, "efficient_attention", "nystromformer/")


def priority():
  """BigBird's blocks chosen as theirs were."""
  blocks = theirs.T // theirs.BLOCK
  priority = np.zeros((theirs.H, blocks, blocks), np.float32)
  np.put_along_axis(priority[:, 1:-1], theirs.CHOSEN, 1, axis=2)
  return priority


def test_bigbird_is_the_one_of_transformers():
  mixer = build("bigbird", width=theirs.D, heads=theirs.H, block=theirs.BLOCK, random=1, max_len=theirs.T, bias=True)
  params = lambda p: {"qkv": maps(p, **BERT)}
  same(mixer, params, "efficient_attention", "bigbird/", buffers={"priority": priority()})


def test_bigbird_is_googles():
  blocks = np.concatenate([priority()] * 3)
  run = lambda p: on_heads("bigbird", p, {"priority": blocks}, block=theirs.BLOCK, random=1, max_len=theirs.T)
  check(run, *read("lra_bigbird"))


def test_reformer_is_the_one_of_transformers():
  mixer = build("reformer", width=theirs.D, heads=theirs.H, buckets=theirs.BUCKETS, chunk=theirs.CHUNK)
  params = lambda p: maps(p, bias=False, q_proj="query_key", v_proj="value")
  buffers = entries_of("efficient_attention", "reformer_hash/")
  same(mixer, params, "efficient_attention", "reformer/", buffers=buffers)


def test_fnet_is_the_one_of_transformers():
  same(build("fnet", width=theirs.D), lambda p: {}, "efficient_attention", "fnet/")
