"""From the original files, local or downloaded, to a prepared data set in the cache folder."""

import contextlib
import fcntl
import os
import pathlib
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from data import original, pipeline
from data.original import File
from mistake import Mistake

# seconds
PATIENCE = 20


class Original(NamedTuple):
  """A file as its authors published it."""

  name: str
  url: str
  file: File


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
      paths = {key: self.folder / each.name for key, each in self.ORIGINALS.items()}
    else:
      urls = {key: each.url for key, each in self.ORIGINALS.items()}
      try:
        # the download retries for minutes where there is no network, so ask once first
        with urllib.request.urlopen(next(iter(urls.values())), timeout=PATIENCE):
          pass
        paths = {key: pathlib.Path(path) for key, path in dl_manager.download(urls).items()}
      # what fails between here and there has no common type: sockets, TLS, HTTP, the file system
      except Exception as error:
        files = {each.name: each.file for each in self.ORIGINALS.values()}
        reason = " ".join(str(error).split())[:200]
        raise Mistake(
          f"cannot download {self.name}: {reason}; put {original.listed(files)} from {source(self.ORIGINALS.values())} "
          "into a folder and name it in data.dir"
        ) from error
    for key, path in paths.items():
      original.verify(path, self.ORIGINALS[key].file, self.ORIGINALS[key].url)
    return paths


def source(originals: Iterable[Original]) -> str:
  """Returns the address that all originals have in common."""
  urls = [each.url for each in originals]
  return urls[0] if len(urls) == 1 else os.path.commonprefix(urls).rpartition("/")[0]


def find_folder(folder: str, originals: Iterable[Original], sub: str) -> pathlib.Path | None:
  """Returns the folder that holds the originals: data.dir or its subfolder `sub`; None where data.dir is empty.

  Raises:
    Mistake: it is missing or lacks one of them.
  """
  if not folder:
    return None
  root, originals = pipeline.folder("dir", folder), tuple(originals)
  files = {each.name: each.file for each in originals}
  if not root.is_dir():
    raise Mistake(
      f"data.dir={folder!r} is not a folder: name one with {original.listed(files)} from {source(originals)}, or leave "
      "it empty to download"
    )
  where = f"data.dir={folder!r}, with its folder {sub!r},"
  return original.find(where, (root / sub, root), files, f"{source(originals)}, or leave data.dir empty to download")


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
  local = find_folder(folder, builder.ORIGINALS.values(), sub)
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
