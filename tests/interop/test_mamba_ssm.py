"""The layout of state-spaces/mamba: tensors of transformers' fixtures under the authors' names are the same model."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.core import meta
from safetensors.numpy import load_file, save_file

from interop import hf, plan
from mistake import Mistake
from scripts.golden.mamba import MAMBA3
from tests.contract.case import jit
from tests.golden.compare import read
from tests.interop.released import SHARED

needs_fixtures = pytest.mark.skipif(not SHARED.is_dir(), reason=f"there is no {SHARED}")


def folder_of(path, config, tensors):
  path.mkdir()
  (path / "config.json").write_text(json.dumps(config))
  save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, path / "model.safetensors")
  return path


def renamed(name, theirs):
  """A fixture of transformers in the authors' layout; its sizes under their names."""
  tensors = load_file(SHARED / name / "model.safetensors")
  values = json.loads((SHARED / name / "config.json").read_text())
  tensors = {key.replace("backbone.embeddings.", "backbone.embedding."): x for key, x in tensors.items()}
  cfg = {ours: values[key] for ours, key in theirs.items() if key in values}
  config = dict(
    d_model=values["hidden_size"], n_layer=values["num_hidden_layers"], vocab_size=values["vocab_size"], rms_norm=True,
    residual_in_fp32=True, fused_add_norm=True, pad_vocab_size_multiple=1, tie_embeddings=values["tie_word_embeddings"],
  )  # fmt: skip
  if config["tie_embeddings"]:
    # as torch saves it
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
  return config | {"ssm_cfg": cfg}, tensors


COMMON = {
  "d_state": "state_size",
  "expand": "expand",
  "d_conv": "conv_kernel",
  "conv_bias": "use_conv_bias",
  "bias": "use_bias",
}
CASES = {
  "mamba": COMMON | {"dt_rank": "time_step_rank"},
  "mamba2": COMMON | {"headdim": "head_dim", "ngroups": "n_groups", "dt_limit": "time_step_limit"},
}


@needs_fixtures
@pytest.mark.parametrize("name", CASES)
def test_the_same_tensors_under_the_authors_names_are_the_same_model(name, tmp_path):
  config, tensors = renamed(name, CASES[name])
  if name == "mamba2":
    config["ssm_cfg"]["layer"] = "Mamba2"
  model, variables, values = hf.load(folder_of(tmp_path / "theirs", config, tensors))
  # theirs have one epsilon
  shutil.copytree(SHARED / name, tmp_path / "ours")
  (tmp_path / "ours" / "config.json").chmod(0o644)
  original = json.loads((SHARED / name / "config.json").read_text()) | {"layer_norm_epsilon": 1e-5}
  (tmp_path / "ours" / "config.json").write_text(json.dumps(original))
  other, expected, _ = hf.load(tmp_path / "ours")
  jax.tree.map(np.testing.assert_array_equal, variables, expected)
  tokens = np.arange(12).reshape(1, 12) % model.vocab
  np.testing.assert_array_equal(jit(model.apply)(variables, tokens), jit(other.apply)(expected, tokens))
  hf.save(tmp_path / "back", model, variables, values)
  assert json.loads((tmp_path / "back" / "config.json").read_text()) == config
  back = load_file(tmp_path / "back" / "model.safetensors")
  assert back.keys() == tensors.keys() - {"lm_head.weight"} | (
    {"lm_head.weight"} if not config["tie_embeddings"] else set()
  )
  for key, x in back.items():
    np.testing.assert_array_equal(x, np.asarray(tensors[key], np.float32))


def test_tensors_of_the_authors_mamba_3_are_its_layer(tmp_path):
  """A layer of the recorded run of their code, as a whole model's; tests/golden compares the layer's outputs."""
  for kind in ("siso", "mimo"):
    given = read("mamba3", f"{kind}/")[0]
    rank = given["B_bias"].shape[1]
    d, (heads, _, n) = given["x"].shape[-1], given["B_bias"].shape
    cfg = dict(layer="Mamba3", d_state=n, headdim=2 * d // heads, is_mimo=rank > 1) | MAMBA3[kind]
    config = dict(d_model=d, n_layer=1, vocab_size=9, ssm_cfg=cfg, tie_embeddings=False)
    names = {name for name in given if name not in ("x",) and not name.startswith("state")}
    rng = np.random.default_rng(0)
    tensors = {f"backbone.layers.0.mixer.{name}": given[name] for name in names}
    tensors |= {f"backbone.{name}.weight": rng.normal(size=d) for name in ("layers.0.norm", "norm_f")}
    tensors |= {name: rng.normal(size=(16, d)) for name in ("backbone.embedding.weight", "lm_head.weight")}
    tensors = {name: np.asarray(x, np.float32) for name, x in tensors.items()}
    model, variables, _ = hf.load(folder_of(tmp_path / kind, config, tensors))
    mixer = variables["params"]["body"]["m"]["mixer"]
    np.testing.assert_array_equal(mixer["in_proj"]["kernel"][0], given["in_proj.weight"].T)
    np.testing.assert_array_equal(mixer["C_bias"][0], given["C_bias"].swapaxes(0, 1))
    assert model.vocab == 16
    assert ("mimo_o" in mixer) == (rank > 1)


HYBRID = dict(
  d_model=8, d_intermediate=130, n_layer=3, vocab_size=17, rms_norm=False, tie_embeddings=True,
  ssm_cfg=dict(layer="Mamba2", d_state=4, headdim=4, ngroups=2, d_ssm=8, D_has_hdim=True, norm_before_gate=True),
  attn_layer_idx=[1], attn_cfg=dict(num_heads=4, num_heads_kv=2, head_dim=4, causal=True, rotary_emb_dim=2,
                                    qkv_proj_bias=False),
)  # fmt: skip


def test_a_hybrid_is_saved_and_read_under_the_authors_names(tmp_path):
  made = plan.make(HYBRID, "config.json", "float32")
  rng = np.random.default_rng(0)
  shapes = meta.unbox(made.boxed)
  variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
  hf.save(tmp_path / "saved", made.model, variables, HYBRID)
  tensors = load_file(tmp_path / "saved" / "model.safetensors")
  shape = {name: x.shape for name, x in tensors.items()}
  assert shape["backbone.embedding.weight"] == (24, 8)
  assert shape["backbone.layers.1.mixer.in_proj.weight"] == (4 * 4 + 2 * 2 * 4, 8)
  assert shape["backbone.layers.1.mixer.out_proj.bias"] == (8,)
  assert shape["backbone.layers.2.mlp.fc1.weight"] == (2 * 256, 8)
  assert shape["backbone.layers.0.norm2.bias"] == (8,)
  assert "backbone.layers.1.mixer.in_proj.bias" not in shape
  again, read_back, _ = hf.load(tmp_path / "saved")
  assert again == made.model
  jax.tree.map(np.testing.assert_array_equal, read_back, variables)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(attn_cfg=dict(num_heads=4, d_conv=4, causal=True)), "attn_cfg: d_conv=4; it must be 0"),
    (dict(attn_cfg=dict(num_heads=4)), "attn_cfg: causal=None; it must be True"),
    (dict(ssm_cfg=dict(layer="Mamba4")), "layer='Mamba4' changes the computation"),
    (dict(ssm_cfg=dict(layer="Mamba2", headdim=4, rotate=3)), "ssm_cfg has keys .*rotate=3"),
    (dict(scale=3), "not known here: scale=3"),
  ],
)
def test_what_is_not_known_is_refused(change, message):
  with pytest.raises(Mistake, match=message):
    plan.make(HYBRID | change, "config.json", "float32")
