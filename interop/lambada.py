"""LAMBADA: the last word of a passage, which follows from the whole passage alone (Paperno 2016, arXiv:1606.06031).

Accuracy is the share of words that the model writes, token by token the likeliest; perplexity is exp of the mean of
-log p(word), each word with all its tokens. It uses the model's own loss and generation, nothing of `interop.harness`,
whose numbers it is there to check.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inference import tokenizer
from inference.evaluators import Ask, Subject, alone
from inference.generate import generate
from inference.text_model import TextModel
from interop.scores import Row, pair
from mistake import Mistake


def read(path: str | Path, limit: int | None = None) -> list[str]:
  """Reads the first passages of a .jsonl file, whose lines are objects with a text.

  Raises:
    Mistake: it cannot be read, or a line has no text of at least two words.
  """
  path, passages = Path(path).expanduser(), []
  try:
    # not by `splitlines`, which also ends lines at characters that JSON may hold
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")[:limit]
  except (OSError, UnicodeDecodeError) as error:
    raise Mistake(f"{path} cannot be read: {error}; give the .jsonl file of LAMBADA's test set") from None
  if lines == [""]:
    raise Mistake(f"{path} has no passages")
  for number, line in enumerate(lines, 1):
    try:
      text = json.loads(line)["text"]
      words = text.split(" ")
    except (ValueError, KeyError, TypeError, AttributeError):
      words = []
    if len(words) < 2 or not words[-1]:
      raise Mistake(f'{path}:{number} is no {{"text": "…"}} of at least two words between single spaces')
    passages.append(text)
  return passages


@dataclasses.dataclass(frozen=True)
class Lambada:
  """The last words of LAMBADA's passages: accuracy and perplexity, as an evaluator of a run (`inference.evaluators`).

  Attributes:
    file: the .jsonl file of passages.
    limit: the first so many of them, 0 for all.
    batch: passages read at once.
  """

  file: str = ""
  limit: int = 0
  batch: int = 8

  def prepare(self, subject: Subject, label: str) -> Ask:
    """Reads the file and the tokenizer; returns the function that evaluates.

    Raises:
      Mistake: the file cannot be read, or the task has no text.
    """
    passages = read(self.file, self.limit or None)
    words = tokenizer.find(subject.workdir, subject.task, subject.model.vocab)

    def measure(variables: Any) -> dict[str, float]:
      return evaluate(TextModel(subject.model, variables, words), passages, batch=self.batch)

    return lambda variables, _: {f"{label}/{key}": value for key, value in alone(measure, variables).items()}


def split(passage: str) -> tuple[str, str]:
  """Cuts the last word off, with the space before it."""
  context, _, word = passage.rpartition(" ")
  return context, f" {word}"


def evaluate(writer: TextModel, passages: Sequence[str], *, batch: int = 8) -> dict[str, float]:
  """Returns "accuracy" and "perplexity" of the last words."""
  rows = sorted((pair(writer.tokenizer, *split(passage)) for passage in passages), key=lambda row: len(row.tokens))
  # Linen says that `apply` returns a dict
  apply: Any = writer.model.apply
  loss = jax.jit(lambda variables, one: apply(variables, one, method="loss")["loss"][0])
  nats, right = 0.0, 0
  # one number for all batches, so that few programs are compiled
  most = max(len(row.tokens) - row.first for row in rows)
  for first in range(0, len(rows), batch):
    here = rows[first : first + batch]
    nats += float(loss(writer.variables, _as_batch(here, batch)))
    written = generate(
      writer.model, writer.variables, [row.tokens[: row.first] for row in here], max_new_tokens=most
    ).rows()
    right += sum(_starts(tokens, row) for tokens, row in zip(written, here))
  return {"accuracy": right / len(rows), "perplexity": math.exp(min(nats / len(rows), 700.0))}


def _starts(written: list[int], row: Row) -> bool:
  word = row.tokens[row.first :].tolist()
  return written[: len(word)] == word


def _as_batch(rows: list[Row], batch: int) -> dict[str, np.ndarray]:
  """Returns a batch of padded rows in which the last words alone count; its width is rounded up, for few programs."""
  width = -(-max(len(row.tokens) for row in rows) // 64) * 64
  tokens, weights = np.zeros((batch, width + 1), np.int32), np.zeros((batch, width), np.float32)
  lengths = np.zeros(batch, np.int32)
  for number, row in enumerate(rows):
    tokens[number, : len(row.tokens)] = row.tokens
    weights[number, row.first - 1 : len(row.tokens) - 1] = 1
    lengths[number] = len(row.tokens) - 1
  return {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights, "lengths": lengths}


def task(path: str | Path) -> dict[str, object]:
  """Returns the same passages as a task of lm-evaluation-harness, by the definition of its `lambada_openai`."""
  return {
    "task": "lambada_file",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": str(Path(path).expanduser().absolute())}},
    "output_type": "loglikelihood",
    "test_split": "test",
    "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
    "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    "metric_list": [
      {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
      {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
  }
