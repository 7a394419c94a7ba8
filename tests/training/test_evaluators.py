"""Evaluators beside a run's own evaluation sets: what they report, what they write, and what is refused."""

import json
import wave

import numpy as np
import pytest

from configs import base, mqar, text
from inference import samples
from inference.evaluators import EVALUATORS, Subject, build
from mistake import Mistake
from training import describe, settings
from training.run import Run

SIZES = "mixer=softmax,width=8,depth=1,batch=2,length=16,steps=2,warmup=1,log_every=0,eval.every=0,save.every=0"
LONG = "evaluators.long.name=task,evaluators.long.every=1,evaluators.long.data.length=32,evaluators.long.batches=1"


@pytest.fixture(scope="module")
def subject():
  made = Run.from_config(base.get_config(SIZES))
  return Subject(made.model, made.task, made.mesh, made.config.data.to_dict(), "def", None)


@pytest.mark.parametrize(
  "arg,message",
  [
    ("name=taks", "no evaluator is called 'taks' .did you mean 'task'"),
    ("name=data.task.build_task", "no evaluator is called 'data.task.build_task'"),
    (
      "name=task,evaluators.a.lenght=3",
      "evaluators.a: 'task' has no field 'lenght'.*'data', 'model', 'batches', 'chunk'",
    ),
    ("name=task,evaluators.a.batches=many", "evaluators.a.batches='many'; it must be of the kind int"),
    ("name=task,evaluators.a.data=3", "evaluators.a.data=3; it is a section"),
    ("name=task,evaluators.a.data.lenght=3", "evaluators.a: task 'bytes' has no field 'lenght'"),
    ("name=task,evaluators.a.model.body.letters.m.heds=2", "evaluators.a: mixer 'softmax' has no"),
    ("name=task,evaluators.a.model.width=2", "evaluators.a: model.width cannot differ from the run's"),
    ("name=task,evaluators.a.model.body.depth=2", "evaluators.a: model=.* changes the parameters' shapes"),
    ("name=task,evaluators.a.data.name=adding", "evaluators.a: the task has head='regression'"),
    ("name=samples,evaluators.a.rows=0", "evaluators.a: rows=0"),
    ("name=lambada,evaluators.a.file=no.jsonl", "no.jsonl cannot be read"),
    ("every=1", "evaluators.a=.*it is a section with a name"),
    ("name=task,evaluators.a.every=-1", "evaluators.a.every=-1; it must be 0"),
    ("name=task,evaluators.eval.name=task", "evaluators.eval: the rows of metrics have that name"),
  ],
)
def test_what_is_wrong_is_named(subject, arg, message):
  arg = arg if arg.startswith("evaluators") else f"evaluators.a.{arg}"
  with pytest.raises(Mistake, match=message):
    build(settings.load(base.get_config(arg)).evaluators.to_dict(), subject)


def test_evaluators_are_listed_and_described():
  assert [line.split()[0] for line in describe.names("evaluators").splitlines()] == list(EVALUATORS)
  assert "temperature" in describe.page("samples")


def test_a_config_without_evaluators_has_none():
  old = mqar.get_config().to_dict()
  del old["evaluators"]
  assert settings.load(old).evaluators.to_dict() == {}


@pytest.mark.slow
def test_a_run_reports_what_its_evaluators_find(tmp_path):
  (tmp_path / "text.txt").write_text("the state space of a scan is the space of states it has seen. " * 60)
  words = "evaluators.words.name=samples,evaluators.words.tokens=8,evaluators.words.rows=2,generate.prompt=def"
  (tmp_path / "passages.jsonl").write_text('{"text": "a state of a scan"}\n{"text": "the space of states"}\n')
  last = f"evaluators.last.name=lambada,evaluators.last.file={tmp_path}/passages.jsonl"
  config = text.get_config(f"files={tmp_path}/text.txt,{SIZES},{LONG},{words},{last}")
  tmp_path = tmp_path / "run"
  made = Run.from_config(config, tmp_path)
  assert made.train() == "done"
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  long = {row["step"]: row for row in rows if "long/validation/loss" in row}
  assert list(long) == [0, 1, 2]
  assert [("eval/validation/loss" in row, "words/distinct" in row) for row in long.values()] == [
    *[(False, False)] * 2,
    (True, True),
  ]
  assert (tmp_path / "samples" / "words" / "step_00000002.txt").read_text().startswith("def")
  assert set(Run.open(tmp_path).evaluate()) >= {
    "eval/validation/loss",
    "long/validation/loss",
    "words/distinct",
    "last/perplexity",
  }


def test_samples_are_images_and_sounds(tmp_path):
  from matplotlib.image import imread

  first, tokens = np.zeros(1, int), np.arange(3 * 12).reshape(3, 12)
  samples.Image(2, 3).write(tmp_path, 5, first, tokens)
  image = (imread(tmp_path / "step_00000005.png")[..., :3] * 255).round()
  assert image.shape == (4, 4, 3)
  np.testing.assert_array_equal(image[:2, :2].reshape(-1), tokens[0])
  np.testing.assert_array_equal(image[:2, 2:].reshape(-1), tokens[1])
  np.testing.assert_array_equal(image[2:, 2:], 0)
  samples.Sound(lambda codes: codes / 100, 8000).write(tmp_path, 5, first, tokens)
  with wave.open(str(tmp_path / "step_00000005_2.wav")) as file:
    assert (file.getframerate(), file.getnframes()) == (8000, 12)
    assert np.frombuffer(file.readframes(12), "<i2")[0] == int(0.24 * 32767)
  assert samples.distinct(np.array([[1, 2, 1, 2, 1, 2, 1]])) == 0.5
