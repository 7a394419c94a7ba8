"""RWKV-7 under its authors' names and under flash-linear-attention's: logits of an independent forward of each file."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from interop import hf, plan
from mistake import Mistake
from tests.contract.case import jit

D, DEPTH, HEAD, INNER, VOCAB, RANKS = 12, 2, 4, 20, 19, dict(w=3, a=5, v=2, g=6)
RNG = np.random.default_rng(0)


def authors():
  """Tensors under the names of the authors' files, every one drawn."""
  shapes = {"emb.weight": (VOCAB, D), "head.weight": (VOCAB, D)}
  norms = ["blocks.0.ln0", "ln_out"]
  for i in range(DEPTH):
    norms += [f"blocks.{i}.{name}" for name in ("ln1", "ln2", "att.ln_x")]
    shapes |= {f"blocks.{i}.att.{name}.weight": (D, D) for name in ("receptance", "key", "value", "output")}
    vectors = [*(f"x_{name}" for name in "rwkvag"), "k_k", "k_a", "w0", "a0"]
    shapes |= {f"blocks.{i}.att.{name}": (1, 1, D) for name in vectors}
    shapes |= {f"blocks.{i}.att.r_k": (D // HEAD, HEAD), f"blocks.{i}.ffn.x_k": (1, 1, D)}
    shapes |= {f"blocks.{i}.ffn.key.weight": (INNER, D), f"blocks.{i}.ffn.value.weight": (D, INNER)}
    for name in "wag" + "v" * (i > 0):
      shapes |= {f"blocks.{i}.att.{name}1": (D, RANKS[name]), f"blocks.{i}.att.{name}2": (RANKS[name], D)}
    shapes |= {f"blocks.{i}.att.v0": (1, 1, D)} if i else {}
  shapes |= {f"{name}.{leaf}": (D,) for name in norms for leaf in ("weight", "bias")}
  return {name: RNG.normal(size=shape).astype(np.float32) * 0.7 for name, shape in shapes.items()}


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def normal(x, weight, bias, eps):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def forward(p, tokens):
  """Logits of one row, in float64, token by token, straight from the authors' tensors (arXiv:2503.14456, sec. 4.1)."""
  p = {name: x.squeeze().astype(np.float64) for name, x in p.items()}
  norm = lambda name, x: normal(x, p[f"{name}.weight"], p[f"{name}.bias"], 1e-5)
  heads = lambda x: x.reshape(D // HEAD, HEAD)
  S = np.zeros((DEPTH, D // HEAD, HEAD, HEAD))
  before, logits = np.zeros((DEPTH, 2, D)), []
  for token in tokens:
    x = norm("blocks.0.ln0", p["emb.weight"][token])
    for i in range(DEPTH):
      q = {name.removeprefix(f"blocks.{i}.att."): value for name, value in p.items() if f"blocks.{i}.att." in name}
      u = norm(f"blocks.{i}.ln1", x)
      mixed = {name: u + q[f"x_{name}"] * (before[i, 0] - u) for name in "rwkvag"}
      before[i, 0] = u
      r, k, v = (q[f"{name}.weight"] @ mixed[name[0]] for name in ("receptance", "key", "value"))
      decay = np.exp(-sigmoid(q["w0"] + np.tanh(mixed["w"] @ q["w1"]) @ q["w2"]) * np.exp(-0.5))
      rate = sigmoid(q["a0"] + mixed["a"] @ q["a1"] @ q["a2"])
      gate = sigmoid(mixed["g"] @ q["g1"]) @ q["g2"]
      if i == 0:
        first = v
      else:
        v = v + (first - v) * sigmoid(q["v0"] + mixed["v"] @ q["v1"] @ q["v2"])
      kappa = heads(k * q["k_k"])
      kappa = kappa / np.linalg.norm(kappa, axis=1, keepdims=True)
      k = k * (1 + (rate - 1) * q["k_a"])
      rh, kh, vh, dh, ah = map(heads, (r, k, v, decay, rate))
      for h in range(D // HEAD):
        S[i, h] = S[i, h] * dh[h] - np.outer(S[i, h] @ kappa[h], kappa[h] * ah[h]) + np.outer(vh[h], kh[h])
      y = np.einsum("hvk,hk->hv", S[i], rh)
      y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + HEAD * 1e-5)
      y = y.ravel() * q["ln_x.weight"] + q["ln_x.bias"]
      y = y + ((rh * kh * q["r_k"]).sum(1, keepdims=True) * vh).ravel()
      x = x + q["output.weight"] @ (y * gate)
      u = norm(f"blocks.{i}.ln2", x)
      mixed_k = u + p[f"blocks.{i}.ffn.x_k"] * (before[i, 1] - u)
      before[i, 1] = u
      x = x + p[f"blocks.{i}.ffn.value.weight"] @ np.maximum(p[f"blocks.{i}.ffn.key.weight"] @ mixed_k, 0) ** 2
    logits.append(p["head.weight"] @ norm("ln_out", x))
  return np.array(logits)


NAMES = {
  "emb.": "model.embeddings.",
  "head.": "lm_head.",
  "ln_out.": "model.norm.",
  "blocks.0.ln0.": "model.layers.0.pre_norm.",
  "blocks.": "model.layers.",
  ".ln1.": ".attn_norm.",
  ".ln2.": ".ffn_norm.",
  ".att.": ".attn.",
  "ln_x.": "g_norm.",
  "receptance.": "r_proj.",
  "attn.key.": "attn.k_proj.",
  "attn.value.": "attn.v_proj.",
  "output.": "o_proj.",
}


def of_fla(tensors):
  """The same under the names, and with the shapes, of flash-linear-attention."""
  found = {}
  for name, x in tensors.items():
    for old, new in NAMES.items():
      name = name.replace(old, new)
    parent, _, last = name.rpartition(".")
    if last[0] in "wavg" and last[1:] in ("0", "1", "2"):
      leaf = {"0": "2.bias", "1": "0.weight", "2": "2.weight"}[last[1:]]
      name, x = f"{parent}.{last[0]}_lora.lora.{leaf}", x.squeeze() if last[1:] == "0" else x.T
    found[name] = x.squeeze() if last in ("k_k", "k_a") or name.endswith("ffn.x_k") else x
  config = dict(
    model_type="rwkv7", hidden_size=D, num_hidden_layers=DEPTH, head_dim=HEAD, intermediate_size=INNER,
    vocab_size=VOCAB, decay_low_rank_dim=RANKS["w"], a_low_rank_dim=RANKS["a"], v_low_rank_dim=RANKS["v"],
    gate_low_rank_dim=RANKS["g"], norm_first=True, norm_bias=True, norm_eps=1e-5, attn=None, value_dim=[D] * DEPTH,
    fuse_norm=False, hidden_act="sqrelu", hidden_ratio=4, tie_word_embeddings=False,
  )  # fmt: skip
  return config, found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """The folders of both layouts, and the tensors."""
  tensors, root = authors(), tmp_path_factory.mktemp("rwkv7")
  config, renamed = of_fla(tensors)
  for name, values in (("authors", tensors), ("fla", renamed)):
    (root / name).mkdir()
    save_file({key: np.ascontiguousarray(x) for key, x in values.items()}, root / name / "model.safetensors")
  (root / "fla" / "config.json").write_text(json.dumps(config))
  return root, tensors


def test_logits_are_those_of_the_authors_definition(files):
  root, tensors = files
  model, variables, config = hf.load(root / "authors")
  assert config["model_type"] == "rwkv7_pth"
  tokens = np.array([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [18, 0, 7, 7, 7, 2, 11, 13, 17, 1, 0]])
  logits = jit(model.apply)(variables, tokens)
  for row, values in zip(tokens, logits):
    expected = forward(tensors, row)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))
  _, again, _ = hf.load(root / "fla")
  jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("layout", ["authors", "fla"])
def test_what_is_saved_is_what_was_read(files, layout, tmp_path):
  model, variables, config = hf.load(files[0] / layout)
  hf.save(tmp_path / "back", model, variables, config)
  back, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "back", files[0] / layout))
  assert back.keys() == theirs.keys()
  for name, x in theirs.items():
    np.testing.assert_array_equal(back[name], x, err_msg=name)
  jax.tree.map(np.testing.assert_array_equal, hf.load(tmp_path / "back")[1], variables)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(attn={"layers": [1]}), "attn=.*must be null"),
    (dict(norm_first=False), "norm_first=False changes the computation"),
    (dict(value_dim=[D, 2 * D]), "value_dim=.*must be hidden_size=12"),
  ],
)
def test_what_is_not_known_is_refused(change, message):
  with pytest.raises(Mistake, match=message):
    plan.make(of_fla(authors())[0] | change, "config.json", "float32")
