"""Folders that cannot be right: each is refused in one line that names the file, and the tensor where it is one."""

import json
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from interop import hf
from interop import tensors as tensors_lib
from mistake import Mistake
from tests.interop.released import OWN

NAME = "model.safetensors"
TENSOR = "transformer.h.0.ln_1.bias"


def config(folder, **changes):
  """Changes config.json; None takes a key out."""
  path = folder / "config.json"
  values = {**json.loads(path.read_text()), **changes}
  path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def tensors(folder, change):
  """Changes the dict of tensors."""
  values = load_file(folder / NAME)
  change(values)
  save_file(values, folder / NAME)


def header(folder, change):
  """Changes the text of the header and leaves the numbers as they are."""
  raw = (folder / NAME).read_bytes()
  (size,) = struct.unpack("<Q", raw[:8])
  text = change(raw[8 : 8 + size].decode().rstrip()).encode()
  (folder / NAME).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def offsets(text):
  """Puts a tensor at the numbers of another of its size."""
  values = json.loads(text)
  values["transformer.h.1.ln_1.bias"] = values[TENSOR]
  return json.dumps(values)


def twice(text):
  """Names a tensor twice."""
  values = json.loads(text)
  return text[:-1] + f', "{TENSOR}": {json.dumps(values["transformer.h.1.ln_1.bias"])}' + "}"


def shards(folder, **files):
  """Cuts the weights in two, with an index in which some tensors are said to be elsewhere."""
  values = load_file(folder / NAME)
  (folder / NAME).unlink()
  names = sorted(values)
  halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
  for file, part in halves.items():
    save_file({name: values[name] for name in part}, folder / file)
  where = {name: file for file, part in halves.items() for name in part} | files
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def key_twice(folder):
  path = folder / "config.json"
  path.write_text(path.read_text().rstrip()[:-1] + ', "n_layer": 1}')


def half(folder):
  shards(folder)
  (folder / "b.safetensors").unlink()


def bare_pickle(folder):
  (folder / NAME).write_bytes(b"\x80\x04\x95" + bytes(200))


def only_bin(folder):
  (folder / NAME).rename(folder / "pytorch_model.bin")


def raw(folder, cut):
  (folder / NAME).write_bytes(cut((folder / NAME).read_bytes()))


def kind(dtype):
  def change(values):
    values[TENSOR] = values[TENSOR].astype(dtype)

  return change


CASES = {
  "truncated": (lambda f: raw(f, lambda b: b[:-100]), f"{NAME} is no whole safetensors"),
  "no header": (lambda f: raw(f, lambda b: b[:5]), f"{NAME} is no whole safetensors"),
  "empty": (lambda f: raw(f, lambda b: b""), f"{NAME} is no whole safetensors"),
  "huge header": (lambda f: raw(f, lambda b: b"\xff" * 8 + b[8:]), f"{NAME} is no whole safetensors"),
  "overlapping": (lambda f: header(f, offsets), f"{NAME} is no whole safetensors"),
  "a tensor twice": (lambda f: header(f, twice), f"{NAME} is no whole safetensors"),
  "archive of pickles": (lambda f: raw(f, lambda b: b"PK\x03\x04" + b), f"{NAME} is a pickle of PyTorch"),
  "pickle": (bare_pickle, f"{NAME} is a pickle of PyTorch"),
  "pytorch_model.bin": (only_bin, "it has pytorch_model.bin, and pickles are not read"),
  "no config": (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
  "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
  "a key twice": (key_twice, "config.json cannot be read: the key 'n_layer' stands there twice"),
  "a list": (lambda f: (f / "config.json").write_text("[]"), "config.json holds a list"),
  "unknown family": (lambda f: config(f, model_type="gpt3"), "model_type='gpt3' is no family .* 'gpt2'"),
  "no family": (lambda f: config(f, model_type=None), "model_type=None is no family"),
  "a path as family": (lambda f: config(f, model_type="../os"), "is no family known here"),
  "unknown key": (lambda f: config(f, rotary_sharing=2), "not known here: rotary_sharing=2"),
  "unknown value": (lambda f: config(f, activation_function="relu"), "activation_function='relu' changes"),
  "a text as size": (lambda f: config(f, n_embd="x"), "config.json has a value of a kind or size that cannot be"),
  "a width of 0": (lambda f: config(f, n_embd=0), "config.json has a value of a kind or size that cannot be"),
  "an eps below 0": (lambda f: config(f, layer_norm_epsilon=-1), "LayerNorm: eps=-1; it must be at least 0"),
  "no size": (lambda f: config(f, vocab_size=None), "no 'vocab_size'"),
  "quantised": (lambda f: config(f, quantization_config={"quant_method": "fp8"}), r"quantised \(fp8\)"),
  "int8": (lambda f: tensors(f, kind(np.int8)), f"{NAME}: tensor {TENSOR} is I8"),
  "fp8": (lambda f: tensors(f, kind(ml_dtypes.float8_e4m3fn)), f"{NAME}: tensor {TENSOR} is F8_E4M3"),
  "a tensor missing": (lambda f: tensors(f, lambda v: v.pop(TENSOR)), f"are missing: {TENSOR}"),
  "a tensor more": (lambda f: tensors(f, lambda v: v.update(extra=v[TENSOR])), "are not known: .*extra"),
  "another width": (lambda f: config(f, n_embd=27), r"c_attn.weight \[24, 72\]: .* 27 \+ 27 \+ 27"),
  "another inner width": (lambda f: config(f, n_inner=57), r"c_fc.weight \[24, 56\] makes .*\[24, 57\]"),
  "more layers": (lambda f: config(f, n_layer=3), "are missing: transformer.h.2"),
  "fewer layers": (lambda f: config(f, n_layer=1), "are not known: transformer.h.1"),
  "heads that do not divide": (lambda f: config(f, n_head=5), "heads=5 does not divide"),
  "half of the files": (half, "lacks 1 of 2 files: b.safetensors"),
  "a file outside": (lambda f: shards(f, **{TENSOR: "../a.safetensors"}), "'../a.safetensors'; it must be"),
  "a file elsewhere": (lambda f: shards(f, **{TENSOR: "/a.safetensors"}), "'/a.safetensors'; it must be"),
  "a number as file": (lambda f: shards(f, **{TENSOR: 3}), "into 3; it must be"),
  "the wrong file": (lambda f: shards(f, **{TENSOR: "b.safetensors"}), f"{TENSOR} is in b.safetensors, which does not"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_in_one_line(name, tmp_path):
  damage, message = CASES[name]
  folder = tmp_path / "model"
  shutil.copytree(OWN / "gpt2", folder)
  (folder / NAME).chmod(0o644)
  damage(folder)
  before = sorted(folder.iterdir())
  with pytest.raises(Mistake, match=message) as error:
    hf.load(folder)
  assert "\n" not in str(error.value)
  assert sorted(tmp_path.iterdir()) == [folder]
  assert sorted(folder.iterdir()) == before


@pytest.mark.slow
def test_numbers_that_follow_from_the_config_may_be_missing_but_not_others(tmp_path):
  folder = tmp_path / "model"
  shutil.copytree(OWN / "qwen4_exp_text", folder)
  (folder / NAME).chmod(0o644)
  name = "model.layers.0.ple.ple_embedding.layer_multipliers"
  tensors(folder, lambda values: values.update({name: values[name] + 2}))
  with pytest.raises(Mistake, match=f"these have other values than follow from the config: {name}"):
    hf.check(folder)
  tensors(folder, lambda values: values.update({name: values[name].astype(np.float32)}))
  with pytest.raises(Mistake, match=f"tensor {name} is F32, not one of I64, I32"):
    hf.check(folder)
  tensors(folder, lambda values: values.pop(name))
  assert "all 85 tensors are understood" in hf.check(folder)


def test_shards_and_bfloat16_are_read(tmp_path):
  folder = tmp_path / "model"
  shutil.copytree(OWN / "gpt2", folder)
  (folder / NAME).chmod(0o644)
  tensors(folder, lambda values: values.update({name: x.astype(ml_dtypes.bfloat16) for name, x in values.items()}))
  shards(folder)
  _, variables, _ = hf.load(folder)
  _, whole, _ = hf.load(OWN / "gpt2")
  kernel = variables["params"]["body"]["a"]["mixer"]["q_proj"]["kernel"]
  assert kernel.dtype == np.float32
  np.testing.assert_allclose(kernel, whole["params"]["body"]["a"]["mixer"]["q_proj"]["kernel"], rtol=2**-8)
  model, narrow, _ = hf.load(folder, dtype="bfloat16")
  assert model.dtype == "bfloat16"
  assert narrow["params"]["body"]["a"]["mixer"]["q_proj"]["kernel"].dtype == ml_dtypes.bfloat16


def test_saving_leaves_a_folder_alone_that_is_not_empty(tmp_path):
  model, variables, values = hf.load(OWN / "gpt2")
  (tmp_path / "there").mkdir()
  (tmp_path / "there" / "notes").write_text("mine")
  with pytest.raises(Mistake, match="exists; give a folder that does not"):
    hf.save(tmp_path / "there", model, variables, values)
  with pytest.raises(Mistake, match="are not those of the model that the config describes"):
    hf.save(tmp_path / "new", model, {"params": {}}, values)
  assert [path.name for path in tmp_path.rglob("*")] == ["there", "notes"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch, error):
  def fail(*_, **__):
    raise error

  model, variables, values = hf.load(OWN / "gpt2")
  monkeypatch.setattr(tensors_lib, "save_file", fail)
  with pytest.raises(Mistake, match=f"new cannot be written: .*{error.strerror}"):
    hf.save(tmp_path / "new", model, variables, values)
  assert not list(tmp_path.iterdir())


def fill_twice(folder) -> None:
  with tensors_lib.new_folder(folder) as late:
    (late / "late").touch()
    with tensors_lib.new_folder(folder) as early:
      (early / "early").touch()


def test_of_two_that_make_one_folder_the_first_to_end_has_it(tmp_path):
  folder = tmp_path / "run"
  with pytest.raises(Mistake, match="run cannot be written: .* not empty"):
    fill_twice(folder)
  assert [path.name for path in tmp_path.iterdir()] == ["run"]
  assert [path.name for path in folder.iterdir()] == ["early"]
