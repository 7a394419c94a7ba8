"""Runs as Python objects: made from a config, trained in memory or in a folder, opened again, started from another."""

import io
import json
import shutil

import jax
import numpy as np
import pytest

from attention.softmax import Attention
from configs import base, text
from data import packing
from defaults import RUN
from inference.evaluators import Evaluation
from mistake import Mistake
from training import describe, workdir
from training.run import Run

WORDS = "the state space of a scan is the space of states that a scan has seen. " * 60
SIZES = "mixer=softmax,width=8,depth=1,length=16,batch=2,steps=4,log_every=2,warmup=1,eval.every=2,save.every=2"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text(WORDS)
  return path


def config(file, more=""):
  return text.get_config(f"files={file},{SIZES}{more}")


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
  run = Run.from_config(config(file), tmp_path_factory.mktemp("run") / "run")
  assert run.train() == "done"
  return run


def same(left, right):
  pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
  return all(np.array_equal(a, b) for a, b in pairs)


def test_a_run_in_memory_of_a_mixers_class_ends_as_one_of_its_name_in_a_folder(file, trained, capsys):
  given = config(file)
  with given.ignore_type():
    given.model.body.letters.m.name = Attention
  run = Run.from_config(given)
  assert run.step == 0
  assert run.train() == "done"
  assert "depth 1: 1 Attention;" in capsys.readouterr().out
  assert run.step == trained.step == 4
  assert same(run.state.params, trained.state.params)
  assert run.evaluate() == trained.evaluate()


def test_an_opened_run_has_the_variables_of_its_checkpoint(trained):
  run = Run.open(trained.workdir)
  assert run.step == 4
  assert same(run.variables, trained.variables)
  assert run.evaluate() == trained.evaluate()
  assert Run.open(trained.workdir, step=2).step == 2
  out = io.StringIO()
  written = run.generate("the", tokens=4, out=out)
  assert out.getvalue() == "the" + written + "\n"
  assert written == run.generate("the", tokens=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "schedule_free_adamw", "ademamix", "adopt"])
def test_every_new_optimizer_trains_ten_steps_resumes_exactly_and_is_opened(file, tmp_path, name):
  more = f",optimizer.name={name},schedule=constant,skip=100,mlp=2"
  whole = Run.from_config(config(file, more + ",steps=10"))
  assert whole.train() == "done"
  assert Run.from_config(config(file, more + ",steps=5"), tmp_path / "run").train() == "done"
  resumed = Run.from_config(config(file, more + ",steps=10"), tmp_path / "run")
  assert resumed.train() == "done"
  assert same(whole.state, resumed.state)
  opened = Run.open(tmp_path / "run")
  assert same(opened.variables, whole.variables)
  assert opened.evaluate() == whole.evaluate()


def test_predict_gives_the_logits_that_evaluation_scores(trained):
  rows = next(iter(trained.task.eval_sets().values()))()
  batch = next(iter(rows))
  logits = trained.predict(batch)
  assert logits.shape == (*batch["inputs"].shape, trained.task.vocab)
  assert np.isfinite(logits[batch["weights"] > 0]).all()


def test_evaluation_may_change_batch_and_dtype_but_not_the_model(file, trained):
  other = Run.open(trained.workdir, config=config(file, ",batch=4,dtype=bfloat16"))
  plain = trained.evaluate()["eval/validation/loss"]
  assert other.evaluate()["eval/validation/loss"] == pytest.approx(plain, rel=0.02)
  with pytest.raises(Mistake, match="model.width is 8 there and 16 here"):
    Run.open(trained.workdir, config=config(file, ",width=16"))


def test_weights_of_another_run_are_taken_by_path_and_shape(file, trained, capsys):
  before = Run.from_config(config(file, ",seed=1"))
  run = Run.from_config(config(file, f",seed=1,tie=false,init_from={trained.workdir}"))
  params, theirs = run.state.params, trained.variables["params"]
  shared = {name: params[name] for name in theirs}
  assert same(shared, theirs)
  assert not same(before.state.params["embed"], theirs["embed"])
  out = capsys.readouterr().out
  assert "these start fresh: head" in out
  assert same(run.state.opt, Run.from_config(config(file, ",seed=1,tie=false")).state.opt), "moments start at zero"


def test_a_regular_expression_chooses_the_weights(file, trained):
  run = Run.from_config(config(file, f",seed=1,init_from={trained.workdir / 'checkpoints' / '2'},init_only=^embed"))
  fresh = Run.from_config(config(file, ",seed=1"))
  assert same(run.state.params["embed"], Run.open(trained.workdir, step=2).variables["params"]["embed"])
  assert same(run.state.params["body"], fresh.state.params["body"])


def test_fine_tuning_starts_where_the_other_run_ended(file, trained, tmp_path):
  tuned = Run.from_config(config(file, f",init_from={trained.workdir},lr=1e-9"), tmp_path / "tuned")
  assert tuned.evaluate() == trained.evaluate()
  assert tuned.train() == "done"
  # resumed, it goes on from its own checkpoint
  assert same(Run.open(tmp_path / "tuned").variables, tuned.variables)


def test_the_best_checkpoint_is_kept(file, tmp_path, monkeypatch):
  losses = iter([5.0, 1.0, 3.0, 2.0, 4.0, 6.0])
  rows = lambda variables, step: {"eval/validation/loss": next(losses)}
  more = ",steps=5,eval.every=1,save.every=2,save.keep=1,save.best=eval/validation/loss"
  run = Run.from_config(config(file, more), tmp_path / "run")
  monkeypatch.setattr(run, "_evaluations", [Evaluation(1, "", rows)])
  assert run.train() == "done"
  saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal())
  assert saved == ["1", "5"], "step 1 had the lowest loss, and was not due"


@pytest.mark.slow
def test_wsd_is_extended_from_before_its_decay_as_if_never_shorter(file, tmp_path, capsys):
  sizes = ",schedule=wsd,decay=2,save.every=0,save.keep=1,eval.every=0,steps="
  assert Run.from_config(config(file, sizes + "4"), tmp_path / "run").train() == "done"
  saved = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()]
  assert sorted(saved) == ["2", "4"], "the step before the decay stays"
  extended = Run.from_config(config(file, sizes + "6"), tmp_path / "run")
  capsys.readouterr()
  assert extended.train(from_step=2) == "done"
  assert "steps was 4 and is 6: the wsd schedule decays from step 4 on" in " ".join(capsys.readouterr().out.split())
  whole = Run.from_config(config(file, sizes + "6"))
  whole.train()
  assert same(extended.state.params, whole.state.params)


@pytest.mark.parametrize(
  "source, words",
  [
    ("training", "training batches have nothing to predict: all weights are 0"),
    ("InOrder", "evaluation set 'validation' has nothing to score"),
  ],
)
def test_nothing_to_score_is_refused_before_the_folder_is_made(file, tmp_path, monkeypatch, source, words):
  make = getattr(packing.pipeline, source)
  blank = lambda batch: batch | {"weights": np.zeros_like(batch["weights"])}
  patched = lambda rows, *more: make(lambda first, count: blank(rows(first, count)), *more)
  monkeypatch.setattr(packing.pipeline, source, patched)
  with pytest.raises(Mistake, match=words):
    Run.from_config(config(file), tmp_path / "run").train()
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "more, words",
  [
    (",init_from=nowhere", "nowhere does not exist"),
    (",init_from={},init_only=[", "not a regular expression"),
    (",init_from={},init_only=nothing", "nothing there fits"),
    (",init_from={},init_only=^embed,width=16", r"fits .*: embed/\S+ is \(\d+, 8\) there and \(\d+, 16\) here"),
    (",init_only=embed", "init_from, which is empty"),
  ],
)
def test_weights_that_cannot_be_taken_are_a_mistake(file, trained, more, words):
  with pytest.raises(Mistake, match=words):
    _ = Run.from_config(config(file, more.format(trained.workdir).replace("[", "'['"))).state


def test_a_key_that_an_old_folder_lacks_means_its_default(file, trained, tmp_path):
  folder = shutil.copytree(trained.workdir, tmp_path / "old")
  stored = json.loads((folder / workdir.CONFIG).read_text())
  for section, key in (("model", "dtype"), ("optimizer", "ema"), ("data", "stateful"), ("save", "best")):
    del stored[section][key]
  del stored["init_from"], stored["generate"]
  workdir.write_json(folder / workdir.CONFIG, stored)
  assert Run.open(folder).evaluate() == trained.evaluate()
  assert Run.from_config(config(file, ",steps=5"), folder).train() == "done"
  workdir.write_json(folder / workdir.CONFIG, stored)
  with pytest.raises(Mistake, match="model.dtype is 'float32' there and 'bfloat16' here"):
    Run.from_config(config(file, ",dtype=bfloat16"), folder).train()


def test_defaults_are_those_of_the_config_files():
  whole = base.get_config().to_dict()
  assert {key: whole[key] for key in RUN} == RUN


@pytest.mark.parametrize("kind", describe.kinds())
def test_every_name_of_a_kind_is_listed_and_described(kind):
  # the list of models has a head
  listed = describe.names(kind).splitlines()[kind == "models" :]
  names = list(describe.kinds()[kind])
  assert [line.split()[0] for line in listed] == names
  for name in names[:3]:
    page = describe.page(name)
    assert f"{name}, one of the {kind}" in page
    assert "settings and their defaults:\n  " in page


def test_describe_gives_fields_and_defaults():
  page = describe.page("mamba")
  assert "h_t = exp(dt_t A) h_{t-1}" in page
  assert [line for line in page.splitlines() if line.split()[:1] == ["width"]][0].endswith("(needed)")
  assert "model.body.letters.m.name" in describe.page("bytes")
  with pytest.raises(Mistake, match="did you mean 'mamba'"):
    describe.page("mambo")


def test_a_letter_that_is_a_branch_trains(tmp_path, capsys):
  arg = (
    "mixer=gru,m.branch.scale=0.5,width=8,depth=1,length=16,batch=2,steps=1,eval.batches=1,eval.chunk=0,cpu_devices=0"
  )
  assert Run.from_config(f"configs/bytes.py:{arg}", tmp_path).train() == "done"
  assert "depth 1: 1 gru" in capsys.readouterr().out
