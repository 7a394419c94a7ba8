"""Evaluation: exact over partial batches, and the same by chunks as at once."""

import jax
import numpy as np
import pytest

from data.task import build_task
from hybrids.head.cross_entropy import cross_entropy
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


def test_errors_name_the_setting():
  class Empty(toy.Task):
    def eval_sets(self, process_index=0, process_count=1):
      return {"valid": lambda: iter([])}

  with pytest.raises(ValueError, match="'valid' is empty"):
    evaluate(Empty())
  with pytest.raises(ValueError, match="eval.chunk=-1"):
    evaluate(chunk=-1)

  class Learned(toy.Model):
    positions = 5

  with pytest.raises(ValueError, match="6 tokens.*5 learned positions; set model.max_len=6"):
    make_evaluate(Learned(), TASK, sharding.make_mesh(devices=jax.devices()[:1]), chunk=2)(VARIABLES)

  class Whole(toy.Model):
    STATE = "none"

  with pytest.raises(ValueError, match="eval.chunk=2.*'none'"):
    make_evaluate(Whole(), TASK, sharding.make_mesh(devices=jax.devices()[:1]), chunk=2)


def test_what_is_read_is_told_beforehand():
  assert preview(TASK) == "valid: batches of 8 x 6 tokens", "the toy does not know how many"
  task = build_task("noise", batch=4, length=2000, eval_rows=10)
  assert preview(task) == "validation: 3 batches of 4 x 2,000 tokens"
  assert preview(task, batches=2) == "validation: 2 batches of 4 x 2,000 tokens"
