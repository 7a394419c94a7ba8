"""A folder of tokens as `./dev tokenize` writes it: memory-mapped files of one text and one tokenizer.

  tokens.json                   vocabulary, checksums of the text and of the tokenizer, and what each file holds
  train-00000.tokens.npy        uint16 or uint32: documents end to end, each between a begin and an end token
  train-00000.starts.npy        int64: where each document starts
  tokenizer.json, *.model       the tokenizer, for whoever generates

Nothing is read into memory but the rows that are asked for. No file is unpickled.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from data.packing import batch_of
from data.pipeline import Batch
from mistake import Mistake

MANIFEST, FORM = "tokens.json", 1
SPLITS = ("train", "validation", "test")


class Part(NamedTuple):
  """One open pair of files."""

  tokens: np.ndarray
  starts: np.ndarray


class Facts(NamedTuple):
  """The sizes of a split; nothing predicts the first token of a document."""

  documents: int
  tokens: int
  bytes: int  # of the text
  scored_bytes: int  # of what is predicted: all of it, if documents begin with a token of their own

  @property
  def bytes_per_target(self) -> float:
    """Returns how many bytes of text a predicted token stands for."""
    return self.scored_bytes / max(self.tokens - self.documents, 1)


def names(split: str, number: int) -> tuple[str, str]:
  """Returns the names of a part's files: tokens and starts."""
  return f"{split}-{number:05}.tokens.npy", f"{split}-{number:05}.starts.npy"


@dataclasses.dataclass(frozen=True)
class TokenFolder:
  """A finished folder of tokens.

  Attributes:
    path: where it is.
    facts: what its tokens.json says.
  """

  path: pathlib.Path
  facts: Mapping[str, Any]

  @property
  def vocab(self) -> int:
    """Returns how many tokens the tokenizer has."""
    return self.facts["vocab"]

  @property
  def splits(self) -> list[str]:
    """Returns the splits that the folder has."""
    return [split for split in SPLITS if self.facts["splits"].get(split)]

  def size(self, split: str) -> Facts:
    """Sums over the parts of a split."""
    parts = self.facts["splits"][split]
    return Facts(*(sum(part[key] for part in parts) for key in Facts._fields))

  def open(self, split: str) -> "Shards":
    """Opens the files of a split.

    Raises:
      Mistake: a file is missing, or is not what tokens.json says.
    """
    parts = []
    for number, facts in enumerate(self.facts["splits"][split]):
      part = Part(*(self._array(name) for name in names(split, number)))
      if part.tokens.shape != (facts["tokens"],) or part.starts.shape != (facts["documents"],):
        raise Mistake(
          f"{self.path / names(split, number)[0]} has {part.tokens.size} tokens of {part.starts.size} documents, but "
          f"{MANIFEST} says {facts['tokens']} of {facts['documents']}; the command that made the folder mends it"
        )
      parts.append(part)
    return Shards(parts, self.vocab, self.path)

  def _array(self, name: str) -> np.ndarray:
    try:
      return np.load(self.path / name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
      raise Mistake(f"{self.path / name} cannot be read ({error}); the command that made the folder mends it") from None


class Shards:
  """The tokens of one split, end to end over its files; see `data.packing.Packed`."""

  def __init__(self, parts: list[Part], vocab: int, path: pathlib.Path):
    self._parts, self._vocab, self._path = parts, vocab, path
    self._ends = np.cumsum([len(part.tokens) for part in parts])
    self.size = int(self._ends[-1])

  def rows(self, begins: np.ndarray, length: int) -> Batch:
    """Returns rows from these positions; beyond the end there are document starts, which nothing is to predict.

    Raises:
      Mistake: a token is none of the vocabulary.
    """
    tokens, starts = np.zeros((len(begins), length + 1), np.int64), np.ones((len(begins), length + 1), bool)
    for row, begin in enumerate(begins.tolist()):
      end = min(begin + length + 1, self.size)
      position = begin
      while position < end:
        number = int(np.searchsorted(self._ends, position, side="right"))
        part, first = self._parts[number], int(self._ends[number]) - len(self._parts[number].tokens)
        stop = min(end, int(self._ends[number]))
        tokens[row, position - begin : stop - begin] = part.tokens[position - first : stop - first]
        inside = part.starts[slice(*np.searchsorted(part.starts, (position - first, stop - first)))]
        starts[row, position - begin : stop - begin] = False
        starts[row, np.asarray(inside) + first - begin] = True
        position = stop
    if tokens.max(initial=0) >= self._vocab:
      raise Mistake(f"{self._path} has a token {tokens.max()}, but its tokenizer has {self._vocab}; make it again")
    return batch_of(tokens, starts)


@functools.lru_cache(maxsize=32)
def _read(path: pathlib.Path, changed: int) -> Mapping[str, Any]:
  """Reads the values of tokens.json; the time of its last change is part of the cache's key."""
  facts = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
  if facts["form"] != FORM:
    raise Mistake(f"{path / MANIFEST} is of form {facts['form']}, and form {FORM} is read here; make the folder again")
  wrong = [] if any(facts["splits"].values()) and facts["vocab"] > 0 else ["no tokens"]
  for split, parts in facts["splits"].items():
    bad = [key for part in parts for key in Facts._fields if not isinstance(part[key], int) or part[key] < 0]
    wrong += [f"{split} {bad}"] if bad or split not in SPLITS else []
  if wrong:
    raise Mistake(f"{path / MANIFEST} cannot be right: {', '.join(wrong)}; make the folder again")
  return facts


def read(path: pathlib.Path) -> TokenFolder:
  """Reads a folder's tokens.json.

  Raises:
    Mistake: it is not there, or damaged.
  """
  try:
    return TokenFolder(path, _read(path, (path / MANIFEST).stat().st_mtime_ns))
  except FileNotFoundError:
    raise Mistake(
      f"{path} has no {MANIFEST}: ./dev tokenize --config configs/text.py:files=TEXT --tokenizer FOLDER --out {path} "
      "makes it"
    ) from None
  except Mistake:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise Mistake(f"{path / MANIFEST} cannot be read ({error!r}); make the folder again") from None
