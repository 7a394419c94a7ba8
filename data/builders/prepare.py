"""From the original files, local or downloaded, to a prepared data set in the cache folder."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data import pipeline
from mistake import Mistake

# seconds
PATIENCE = 20


class Original(NamedTuple):
  """A file as its authors published it."""

  name: str
  url: str
  sha256: str


class FromFiles(tfds.core.GeneratorBasedBuilder):
  """A builder whose originals come from a local folder when one is given and from the network otherwise."""

  ORIGINALS: Mapping[str, Original]

  def __init__(self, *, folder: pathlib.Path | None, **kwargs: Any):
    self.folder = folder
    super().__init__(**kwargs)

  def originals(self, dl_manager: tfds.download.DownloadManager) -> dict[str, pathlib.Path]:
    """Returns by key the path of each original, its checksum verified.

    Raises:
      ValueError: an original is missing, differs from the published file or cannot be downloaded.
    """
    if self.folder is not None:
      paths = {key: self.folder / original.name for key, original in self.ORIGINALS.items()}
    else:
      urls = {key: original.url for key, original in self.ORIGINALS.items()}
      try:
        # the download retries for minutes where there is no network, so ask once first
        with urllib.request.urlopen(next(iter(urls.values())), timeout=PATIENCE):
          pass
        paths = {key: pathlib.Path(path) for key, path in dl_manager.download(urls).items()}
      # what fails between here and there has no common type: sockets, TLS, HTTP, the file system
      except Exception as error:
        names = sorted(original.name for original in self.ORIGINALS.values())
        reason = " ".join(str(error).split())[:200]
        raise Mistake(
          f"cannot download {self.name}: {reason}; put {names} into a folder and name it in data.dir"
        ) from error
    for key, path in paths.items():
      verify(path, self.ORIGINALS[key])
    return paths


def verify(path: pathlib.Path, original: Original) -> None:
  """Raises a ValueError unless the file is byte for byte the published one."""
  try:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
  except OSError as error:
    raise Mistake(
      f"cannot read {str(path)!r}: {error.strerror}; check data.dir, or get the file from {original.url}"
    ) from error
  if digest != original.sha256:
    raise Mistake(
      f"{str(path)!r} is not the published file: sha256 {digest}, expected {original.sha256}; "
      f"get it from {original.url}"
    )


def find_folder(folder: str, names: tuple[str, ...], sub: str) -> pathlib.Path | None:
  """Returns the folder that holds the originals: data.dir or its subfolder `sub`; None where data.dir is empty.

  Raises:
    ValueError: it is missing or holds none of them.
  """
  if not folder:
    return None
  root = pipeline.folder("dir", folder)
  if not root.is_dir():
    raise Mistake(f"data.dir={folder!r} is not a folder: name one with {sorted(names)}, or leave it empty to download")
  for path in (root / sub, root):
    if any((path / name).exists() for name in names):
      return path
  raise Mistake(
    f"data.dir={folder!r} has none of {sorted(names)}, nor has its folder {sub!r}: put them there or leave it empty"
  )


def cache_folder(cache: str) -> pathlib.Path:
  """Returns the folder of prepared data sets: data.cache, or the user's cache folder."""
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pipeline.folder("cache", cache or f"{home}/state-space-models-jax").absolute()


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
  """Admits one process at a time, so that runs started together prepare a data set once."""
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def prepare(builder: type[FromFiles], folder: str, sub: str, cache: str) -> FromFiles:
  """Returns the builder after its data set is prepared in the cache.

  Raises:
    ValueError: the originals or the cache folder are not usable.
  """
  local = find_folder(folder, tuple(original.name for original in builder.ORIGINALS.values()), sub)
  where = cache_folder(cache)
  try:
    where.mkdir(parents=True, exist_ok=True)
    with lock(where / f"{builder.name}.lock"):
      made = builder(folder=local, data_dir=str(where), file_format="array_record")
      if not made.data_path.exists():
        tfds.disable_progress_bar()
      made.download_and_prepare()
  except OSError as error:
    raise Mistake(
      f"cannot prepare {builder.name} in {str(where)!r}: {error}; choose another folder with data.cache"
    ) from error
  return made


def examples(builder: FromFiles, split: str) -> Sequence[dict[str, Any]]:
  """Returns all examples of one split, in order.

  Raises:
    ValueError: what the cache holds is damaged.
  """
  try:
    source = builder.as_data_source(split=split)
    return source.__getitems__(range(len(source)))
  # a damaged file shows as whatever the reader or the decoder trips over
  except Exception as error:
    reason = " ".join(str(error).split())[:200]
    folder = str(builder.data_path)
    raise Mistake(f"cannot read {folder!r}: {reason}; delete that folder, and it is prepared again") from error
