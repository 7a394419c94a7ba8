"""Evaluation: exact over partial batches, and the same by chunks as at once."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.core import meta

from data.task import build_task
from hybrids.head.cross_entropy import cross_entropy
from hybrids.model import build_model
from tests.training import toy
from training import losses, sharding
from training.evaluate import make_evaluate, preview

MODEL, TASK = toy.Model(), toy.Task()
VARIABLES = jax.jit(MODEL.init)(jax.random.PRNGKey(0), TASK.make(0)["inputs"])


def evaluate(task=TASK, **settings):
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(mesh):
    return make_evaluate(MODEL, task, mesh, **settings)(VARIABLES)


def expected(batch):
  logits = jax.jit(MODEL.apply)(VARIABLES, batch["inputs"], reset=batch["reset"])
  values = losses.averages(jax.jit(cross_entropy)(logits, batch["targets"], batch["weights"]), TASK.metrics)
  return {f"eval/valid/{name}": value for name, value in values.items()}


def test_a_partial_last_batch_counts_by_its_weights():
  assert evaluate() == pytest.approx(expected(TASK.make(123, TASK.rows)), rel=1e-6)


@pytest.mark.parametrize("chunk", [2, 4, 6, 100])
def test_chunks_give_what_the_whole_gives(chunk):
  assert evaluate(chunk=chunk) == pytest.approx(evaluate(), rel=1e-6)


def test_batches_limits_the_set():
  first = {key: value[:8] for key, value in TASK.make(123, TASK.rows).items()}
  assert evaluate(batches=1) == pytest.approx(expected(first), rel=1e-6)


def test_lengths_are_cut_with_the_chunks():
  ragged = TASK.make(0) | {"lengths": np.array([6, 1, 2, 3, 4, 5, 6, 2], np.int32)}
  ragged["weights"] *= np.arange(6) < ragged["lengths"][:, None]
  ragged["inputs"] = np.where(np.arange(6) < ragged["lengths"][:, None], ragged["inputs"], 0).astype(np.int32)

  class Ragged(toy.Task):
    def eval_sets(self, process_index=0, process_count=1):
      return {"valid": lambda: iter([ragged])}

  assert evaluate(Ragged(), chunk=4) == pytest.approx(evaluate(Ragged()), rel=1e-6)


@dataclasses.dataclass(frozen=True)
class Pairs(toy.Task):
  """Pairs of documents of different lengths, and a label for each pair."""

  head: str = "dual_encoder"
  length: int = 12
  classes: int = 3
  metrics: tuple = ("accuracy",)

  def make(self, seed, batch=None):
    rng = np.random.default_rng(seed)
    inputs, lengths = rng.integers(0, self.vocab, (4, 2, self.length)), rng.integers(1, self.length + 1, (4, 2))
    batch = {"inputs": np.where(np.arange(self.length) < lengths[..., None], inputs, 0), "lengths": lengths}
    batch = {key: value.astype(np.int32) for key, value in batch.items()}
    return batch | {"targets": rng.integers(0, 3, 4).astype(np.int32), "weights": np.ones(4, np.float32)}

  def eval_sets(self, process_index=0, process_count=1):
    return {"valid": lambda: iter([self.make(0), self.make(1)])}


@pytest.mark.parametrize(
  "task, mixer",
  [(build_task("adding", batch=2, length=12, eval_rows=3), "gru"), (Pairs(), "gru"), (Pairs(), "softmax")],
)
def test_chunks_of_rows_with_one_answer_give_what_the_whole_gives(task, mixer):
  """The numbers of an answer stay whole, and of pairs of documents each one is cut along its own time."""
  body = {"name": "stack", "depth": 1, "pattern": "m", "letters": {"m": {"name": mixer}}}
  model = build_model(task, width=4, body=body)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(mesh):
    variables = meta.unbox(jax.jit(model.init)(jax.random.key(0), next(iter(task.train()))["inputs"]))
    whole, parts = (make_evaluate(model, task, mesh, chunk=chunk)(variables) for chunk in (0, 5))
  assert parts == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_nothing_to_score_is_no_number(rows):
  """Not a loss of 0, which would be the best there is."""

  class Nothing(toy.Task):
    def eval_sets(self, process_index=0, process_count=1):
      batch = self.make(0) | {"weights": np.zeros((8, 6), np.float32)}
      return {"valid": lambda: iter([batch] * rows)}

  with pytest.raises(ValueError, match="'valid' has nothing to score"):
    evaluate(Nothing())


def test_errors_name_the_setting():
  with pytest.raises(ValueError, match="eval.chunk=-1"):
    evaluate(chunk=-1)

  class Learned(toy.Model):
    positions = 4

  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  for chunk in (0, 2):
    with pytest.raises(ValueError, match="documents of 5 tokens.*4 learned positions; set model.max_len=5"):
      make_evaluate(Learned(), TASK, mesh, chunk=chunk)

  class Packed(toy.Task):
    lengths = 6

    def eval_sets(self, process_index=0, process_count=1):
      starts = np.arange(6) == 1
      batch = self.make(0) | {"reset": np.tile(starts, (8, 1)), "lengths": np.full(8, self.lengths, np.int32)}
      return {"valid": lambda: iter([batch])}

  with pytest.raises(ValueError, match="documents of 5 tokens"):
    make_evaluate(Learned(), Packed(), mesh)
  Packed.lengths = 5
  make_evaluate(Learned(), Packed(), mesh)

  class Whole(toy.Model):
    STATE = "none"

  with pytest.raises(ValueError, match="eval.chunk=2.*'none'"):
    make_evaluate(Whole(), TASK, sharding.make_mesh(devices=jax.devices()[:1]), chunk=2)


def test_what_is_read_is_told_beforehand():
  assert preview(TASK) == "valid: batches of 8 x 6 tokens", "the toy does not know how many"
  task = build_task("noise", batch=4, length=2000, eval_rows=10)
  assert preview(task) == "validation: 3 batches of 4 x 2,000 tokens"
  assert preview(task, batches=2) == "validation: 2 batches of 4 x 2,000 tokens"
