"""Text as the tokens of any tokenizer, from folders that `./dev tokenize` made: one, or a weighted blend of several."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from data import draws, pipeline, token_shards
from data.base import Base
from data.packing import Epochs, Packed
from data.pipeline import Batch
from data.token_shards import Shards, TokenFolder
from mistake import Mistake

# a blend repeats a pattern of so many rows, in which each folder has its share, in an order drawn anew each time
BLOCK = 1024


class Windows(Epochs):
  """Endless rows of the tokens of files, whose documents stay in their order; see Epochs."""

  UNIT = "tokens"

  def __init__(self, shards: Shards, length: int, batch: int, seed: int, stateful: bool):
    self.shards = shards
    self._lay_out(shards.size, length, batch, seed, stateful)

  def packed(self, index: int) -> Packed:
    """Returns the files, the same in all epochs."""
    return self.shards


class Blend:
  """Endless rows of several sources, of which each block of 1,024 rows has the share of each."""

  def __init__(self, sources: Sequence[Windows], shares: Sequence[float], seed: int):
    exact = np.asarray(shares) / sum(shares) * BLOCK
    counts = np.floor(exact).astype(int)
    # the largest remainders are rounded up
    counts[np.argsort(counts - exact, kind="stable")[: BLOCK - counts.sum()]] += 1
    self.sources, self.seed = sources, seed
    self.counts = counts
    self.owners = np.repeat(np.arange(len(sources)), counts)
    self._order = functools.lru_cache(maxsize=2)(self._block)

  def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns which source each row of a block is of, and its number among the source's rows there."""
    owners = self.owners[draws.permutation(self.seed, "tokens/blend", block, BLOCK)]
    ranks = np.zeros(BLOCK, int)
    for source, count in enumerate(self.counts):
      ranks[owners == source] = np.arange(count)
    return owners, ranks

  def __call__(self, first: int, count: int) -> Batch:
    """Rows first … first + count - 1."""
    rows = []
    for row in range(first, first + count):
      block, index = divmod(row, BLOCK)
      owners, ranks = self._order(block)
      source = int(owners[index])
      rows.append(self.sources[source](block * int(self.counts[source]) + int(ranks[index]), 1))
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}


@dataclasses.dataclass(frozen=True)
class Tokens(Base):
  """Next-token prediction. Bits per byte are of the text's bytes, so that they compare with those of other tokenizers.

  Attributes:
    dir: a folder that `./dev tokenize` made.
    blend: instead, several folders and the share of training rows that each has, (("a", 0.7), ("b", 0.3)). Shares hold
      in every 1,024 rows; a folder begins anew when it has been read. Each is evaluated by itself.
    length: tokens of a training row.
    stateful: row i of each batch continues row i of the last one, for training that carries the recurrent state.
    eval_length: tokens of an evaluation row, 0 for `length`.
    vocab: tokens that the model has; 0 for those of the tokenizer, which may be fewer than those of a released model.
  """

  batch: int = 8
  length: int = 256
  seed: int = 0
  stateful: bool = False
  eval_length: int = 0
  vocab: int = 0
  dir: str = ""
  blend: tuple[tuple[str, float], ...] = ()

  metrics: ClassVar[tuple[str, ...]] = ("loss", "bits_per_byte", "perplexity", "accuracy")

  def __post_init__(self) -> None:
    self.require_all(
      ("batch", self.batch >= 1, "at least 1"),
      ("length", self.length >= 1, "at least 1"),
      ("eval_length", self.eval_length >= 0, "at least 1, or 0 for data.length"),
      ("dir", bool(self.dir) != bool(self.blend), "a folder that ./dev tokenize made, or data.blend in its place"),
      ("blend", all(share > 0 for _, share in self.blend), "shares above 0"),
      ("stateful", not (self.stateful and self.blend), "rows of a blend do not go on; give one data.dir"),
    )
    total = sum(share for _, share in self.blend)
    for folder, share in self.blend:
      self.require("blend", share / total >= 1 / BLOCK, f"{folder} has less than 1/{BLOCK}")
    names = [folder.path.name for folder in self.folders]
    self.require("blend", len(set(names)) == len(names), "folders of different names")
    tokenizers = {folder.facts["tokenizer"]["sha256"]: folder.path for folder in self.folders}
    if len(tokenizers) > 1:
      raise Mistake(f"{' and '.join(map(str, tokenizers.values()))} are of different tokenizers; blend those of one")
    size = self.folders[0].vocab
    object.__setattr__(self, "vocab", self.vocab or size)
    self.require("vocab", self.vocab >= size, f"at least the tokenizer's {size}, or 0 for it")

  @functools.cached_property
  def folders(self) -> list[TokenFolder]:
    """Returns the folders, whose files are not open yet.

    Raises:
      Mistake: one is not such a folder.
    """
    names = [self.dir] if self.dir else [name for name, _ in self.blend]
    return [token_shards.read(pipeline.folder("dir", name)) for name in names]

  @property
  def tokenizer(self) -> str:
    """Returns the folder that has the tokenizer's file."""
    return str(self.folders[0].path)

  @functools.cached_property
  def bytes_per_target(self) -> Mapping[str, float]:
    """Returns the bytes of text that a predicted token stands for, in training and in each evaluation set."""
    shares = [share for _, share in self.blend] or [1.0]
    sizes = [folder.size("train").bytes_per_target if "train" in folder.splits else 0.0 for folder in self.folders]
    train = sum(share * size for share, size in zip(shares, sizes)) / sum(shares)
    return {"train": train} | {name: folder.size(split).bytes_per_target for name, folder, split in self._sets()}

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches of the folder's rows, or of a blend of several.

    Raises:
      Mistake: a folder has no training part, or one that is too short for a row.
    """
    for folder in self.folders:
      if "train" not in folder.splits:
        raise Mistake(f"{folder.path} has nothing to train on: all of its text is for evaluation")
    windows = [
      Windows(folder.open("train"), self.length, self.batch, self.seed, self.stateful) for folder in self.folders
    ]
    rows = Blend(windows, [share for _, share in self.blend], self.seed) if self.blend else windows[0]
    return pipeline.training(rows, self.batch, process_index, process_count)

  def eval_sets(self, process_index: int = 0, process_count: int = 1) -> dict[str, Callable[[], Iterator[Batch]]]:
    """Returns every split but 'train' of every folder: its documents in order, each token predicted once."""
    sets = {name: folder.open(split) for name, folder, split in self._sets()}
    return {name: self._in_order(shards, process_index, process_count) for name, shards in sets.items()}

  def _sets(self) -> Iterator[tuple[str, TokenFolder, str]]:
    for folder in self.folders:
      for split in folder.splits:
        if split != "train":
          yield f"{split}_{folder.path.name}" if self.blend else split, folder, split

  def _in_order(self, shards: Shards, process_index: int, process_count: int) -> Callable[[], Iterator[Batch]]:
    length = self.eval_length or self.length
    rows = max(-(-(shards.size - 1) // length), 1)
    take = lambda first, count: shards.rows(np.arange(first, first + count) * length, length)
    return pipeline.InOrder(take, rows, self.batch, process_index, process_count)

  def describe(self) -> dict[str, Any]:
    """Returns the folders with their sizes, and the checksums of texts and tokenizer as they were written down."""
    facts: dict[str, Any] = {"task": type(self).__name__, "tokenizer": dict(self.folders[0].facts["tokenizer"])}
    checksum = hashlib.sha256()
    for folder in self.folders:
      checksum.update(f"{folder.facts['sha256']} {folder.facts['tokenizer']['sha256']} ".encode())
      sizes = {split: folder.size(split)._asdict() for split in folder.splits}
      facts[folder.path.name] = sizes | {"sha256": folder.facts["sha256"]}
    return facts | {"sha256": checksum.hexdigest()}
