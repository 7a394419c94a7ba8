"""A released model in a workdir: it evaluates, generates and trains on, and is given back as it came."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest
from flax.core import meta

import main
from data.task import build_task
from hybrids.model import build_model
from hybrids.recipes import get_recipe, mamba
from inference.text_model import TextModel
from inference.tokenizer import find
from interop import hf, own, workdir
from mistake import Mistake
from scripts import tokenize_text
from tests.data import pairs
from tests.interop.released import OWN
from training.run import Run

SIZES = dict(width=8, depth=2, state=2, expand=3, taps=3, dt_rank=2)
RELEASED = dict(
  model_type="mamba", hidden_size=8, num_hidden_layers=2, state_size=2, expand=3, conv_kernel=3, time_step_rank=2,
  vocab_size=256,
)  # fmt: skip


def small(recipe, vocab=256):
  """A model, and variables drawn without compiling its initialisation."""
  model, rng = build_model(recipe._replace(vocab=vocab), **recipe.model), np.random.default_rng(0)
  shapes = meta.unbox(jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 1), np.int32)))
  return model, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@pytest.fixture
def released(tmp_path):
  """A folder as transformers would write it, and text to train on."""
  recipe = get_recipe("mamba_toy")._replace(fields=SIZES, function=mamba.model)
  model, variables = small(recipe)
  hf.save(tmp_path / "released", model, variables, RELEASED)
  (tmp_path / "text").mkdir()
  for number in range(40):
    (tmp_path / "text" / f"{number}.txt").write_text(f"line {number} of a small text that says little\n" * 20)
  return tmp_path / "released", variables, f"configs/text.py:dir={tmp_path}/text,length=16,batch=4,steps=30,warmup=0"


@pytest.mark.slow
def test_a_run_starts_from_it_and_gives_it_back(released, tmp_path):
  folder, variables, config = released
  workdir.adopt(folder, config, tmp_path / "run")
  run = Run.open(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, run.variables, variables)
  with pytest.raises(Mistake, match="holds a run already"):
    workdir.adopt(folder, config, tmp_path / "run")
  workdir.export(tmp_path / "run", tmp_path / "back")
  _, again, values = hf.load(tmp_path / "back")
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  assert values == RELEASED | {"dtype": "float32"}


def test_an_infinite_bound_of_the_released_config_comes_back(tmp_path):
  folders = OWN / "mamba2_plain", tmp_path / "run", tmp_path / "back"
  workdir.adopt(folders[0], None, folders[1])
  workdir.export(*folders[1:])
  before, after = (json.loads((folder / "config.json").read_text()) for folder in folders[::2])
  assert after["time_step_limit"] == before["time_step_limit"]


@pytest.mark.parametrize(
  "config, tokenizer, message",
  [
    (
      "configs/text.py",
      "",
      "TextFile reads text as bytes, but .* it has vocab=53; make .*configs/tokens.py, give .*copying.py:vocab=53",
    ),
    ("configs/text.py:vocab=5000", "tokenizer.json", "no bytes: it has vocab=53 and tokenizer.json"),
    ("configs/mqar.py", "", "MQAR has vocab=256, but the model in .* has 53; give .*copying.py:vocab=53"),
    ("configs/copying.py:vocab=53", "a.model b.model", "has 2 tokenizers, a.model, b.model; leave one"),
  ],
)
def test_other_tokens_than_the_models_are_refused(tmp_path, monkeypatch, config, tokenizer, message):
  shutil.copytree(OWN / "gpt2", tmp_path / "released")
  for name in tokenizer.split():
    (tmp_path / "released" / name).touch()
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(Mistake, match=message):
    workdir.adopt(tmp_path / "released", config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_broken_tokenizer_is_refused(tmp_path, capsys):
  shutil.copytree(OWN / "gpt2", tmp_path / "released")
  (tmp_path / "released" / "tokenizer.json").write_text("{}")
  assert hf.main(["load", str(tmp_path / "released"), "--workdir", str(tmp_path / "run")]) == 2
  error = capsys.readouterr().err
  assert "tokenizer.json cannot be read" in error
  assert len(error.splitlines()) == 1
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_larger_vocabulary_of_ours_still_reads_bytes(released, tmp_path):
  model, variables = small(get_recipe("mamba_toy"), vocab=300)
  hf.save(tmp_path / "own", model, variables)
  run = workdir.adopt(tmp_path / "own", f"{released[2]},vocab=300", tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.variables), variables)


@pytest.mark.slow
def test_without_a_config_the_data_are_noise_which_training_says(tmp_path, capsys):
  assert hf.main(["load", str(OWN / "gpt2"), "--workdir", str(tmp_path / "run")]) == 0
  before = jax.device_get(Run.open(tmp_path / "run").variables)
  assert main.main(["main.py", f"--workdir={tmp_path / 'run'}"]) == 0
  assert "the data are noise" in capsys.readouterr().out
  jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(Run.open(tmp_path / "run").variables))


@pytest.mark.slow
def test_the_command_line_loads_trains_evaluates_generates_and_saves(released, tmp_path, capsys):
  folder, variables, config = released
  run = str(tmp_path / "run")
  assert hf.main(["check", str(folder)]) == 0
  assert "mamba, width 8, pattern m, depth 2" in capsys.readouterr().out
  assert hf.main(["load", str(folder), "--workdir", run, "--config", config]) == 0
  losses = []
  for mode in ("eval", "train", "eval", "generate"):
    assert main.main(["main.py", "--workdir", run, "--mode", mode]) == 0
    if mode == "eval":
      losses.append(json.loads((tmp_path / "run" / "eval.json").read_text())["eval/validation/loss"])
  assert losses[1] < losses[0], losses
  assert json.loads((tmp_path / "run" / "summary.json").read_text())["step"] == 30
  assert hf.main(["save", run, str(tmp_path / "tuned")]) == 0
  _, tuned, _ = hf.load(tmp_path / "tuned")
  jax.tree.map(np.testing.assert_array_equal, tuned, jax.device_get(Run.open(run).variables))
  assert any((a != b).any() for a, b in zip(jax.tree.leaves(tuned), jax.tree.leaves(variables), strict=True))
  assert hf.main(["save", run, str(tmp_path / "tuned")]) == 2
  assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture
def tokenized(released, tmp_path, monkeypatch):
  """A released folder with a tokenizer, and a text in its tokens."""
  monkeypatch.setitem(sys.modules, "tokenizers", pairs.LIBRARY)
  tokenize_text.opened.cache_clear()
  recipe = get_recipe("mamba_toy")._replace(fields=SIZES, function=mamba.model)
  folder = pairs.write(tmp_path / "words")
  model, variables = small(recipe, vocab=272)
  hf.save(tmp_path / "new", model, variables, RELEASED | {"vocab_size": 272})
  for path in (tmp_path / "new").iterdir():
    path.rename(folder / path.name)
  task = build_task("text_file", dir=str(tmp_path / "text"))
  tokenize_text.make(tmp_path / "tokens", task, folder / "tokenizer.json", workers=1)
  yield folder, f"configs/tokens.py:dir={tmp_path}/tokens,length=16,batch=4,steps=30,warmup=0,lr=0.03"
  tokenize_text.opened.cache_clear()


@pytest.mark.slow
def test_a_model_is_tuned_on_text_in_its_own_tokens_and_given_back_with_them(tokenized, tmp_path, capsys):
  folder, config = tokenized
  run, values = str(tmp_path / "run"), []
  assert hf.main(["load", str(folder), "--workdir", run, "--config", config]) == 0
  for mode in ("eval", "train", "eval", "generate"):
    assert main.main(["main.py", "--workdir", run, "--mode", mode]) == 0
    if mode == "eval":
      values.append(json.loads((tmp_path / "run" / "eval.json").read_text()))
  loss, bits = "eval/validation/loss", "eval/validation/bits_per_byte"
  assert values[1][loss] < values[0][loss] - 0.1, values
  # an end token for each document is predicted besides its bytes
  assert values[1][bits] < values[1][loss] / np.log(2)
  assert hf.main(["save", run, str(tmp_path / "tuned")]) == 0
  assert (tmp_path / "tuned" / "tokenizer.json").exists()
  model, tuned, _ = hf.load(tmp_path / "tuned")
  jax.tree.map(np.testing.assert_array_equal, tuned, jax.device_get(Run.open(run).variables))
  writer = TextModel(model, tuned, find(tmp_path / "tuned", None, model.vocab), tokens=5, temperature=0)
  assert writer.generate("line") == Run.open(run).generate("line", tokens=5, temperature=0)


def test_a_text_in_the_tokens_of_another_tokenizer_is_refused(tokenized, tmp_path):
  folder, config = tokenized
  (folder / "tokenizer.json").write_text("{ }")
  with pytest.raises(Mistake, match="in the tokens of another tokenizer than .*make it again with ./dev tokenize"):
    workdir.adopt(folder, config, tmp_path / "run")
  (folder / "tokenizer.json").unlink()
  (folder / "config.json").write_text(json.dumps(RELEASED | {"vocab_size": 256}))
  with pytest.raises(Mistake, match="of its config.json"):
    workdir.adopt(folder, config, tmp_path / "run")


@pytest.mark.parametrize(
  "name", ["mamba_toy", *(pytest.param(n, marks=pytest.mark.slow) for n in ("jamba_toy", "samba_toy", "gpt2_toy"))]
)
def test_any_model_is_saved_under_our_own_names(name, tmp_path):
  model, variables = small(get_recipe(name))
  for form in hf.FORMS:
    hf.save(tmp_path / form, model, variables, form=form)
    again, read, config = hf.load(tmp_path / form)
    assert again == model
    assert config["model_type"] == own.MODEL_TYPE
    jax.tree.map(np.testing.assert_array_equal, read, variables)
    assert len({path.stat().st_mode for path in (tmp_path / form).iterdir()}) == 1
  np.savez(tmp_path / "npz" / own.NPZ, **{"params:embed/embedding": np.array([{}], object)})
  with pytest.raises(Mistake, match="model.npz cannot be read"):
    hf.load(tmp_path / "npz")
  with pytest.raises(Mistake, match="form='h5'; choose from safetensors, npz"):
    hf.save(tmp_path / "h5", model, variables, form="h5")


def test_a_folder_of_ours_that_disagrees_with_its_config_is_refused(tmp_path):
  model, variables = small(get_recipe("mamba_toy"))
  hf.save(tmp_path / "own", model, variables)
  path = tmp_path / "own" / "config.json"
  config = json.loads(path.read_text())
  for change, message in (
    ({"vocab": 250}, r"embedding \(256, 8\), not \(250, 8\)"),
    ({"model": {**config["model"], "head": {"name": "lm", "tie": False}}}, "params:head/table are on one side alone"),
    ({"model": None}, "needs 'model'"),
  ):
    path.write_text(json.dumps({**config, **change}))
    with pytest.raises(Mistake, match=message):
      hf.load(tmp_path / "own")
