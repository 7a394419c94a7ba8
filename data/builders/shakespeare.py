"""Tiny Shakespeare (Karpathy 2015): 1,115,394 characters of plays in one file."""

import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from data.builders.prepare import FromFiles, Original, examples, prepare
from data.original import File

# cuts of tensorflow-datasets' tiny_shakespeare, as shares of the characters
SPLITS = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}


class CharRnnShakespeare(FromFiles):
  """The text in its order: the first 90 % train, 5 % validation, 5 % test."""

  VERSION = tfds.core.Version("1.0.0")
  ORIGINALS = {
    "text": Original(
      "input.txt",
      "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
      File("sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", 1115394),
    )
  }

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
    return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features, disable_shuffling=True)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    path = self.originals(dl_manager)["text"]
    return {split: self._generate_examples(path, *cut) for split, cut in SPLITS.items()}

  def _generate_examples(self, path: pathlib.Path, start: float, stop: float) -> Iterator[tuple[int, dict[str, Any]]]:
    text = path.read_text(encoding="utf-8")
    yield 0, {"text": text[int(len(text) * start) : int(len(text) * stop)]}


def load(folder: str, cache: str) -> dict[str, bytes]:
  """Returns the text of each split."""
  builder = prepare(CharRnnShakespeare, folder, "tiny_shakespeare", cache)
  return {split: examples(builder, split)[0]["text"] for split in SPLITS}
