"""Exchanges texts and values between the processes of a run."""

import collections
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging as absl_logging
from jax.experimental import multihost_utils

from mistake import Mistake


def gather(text: str) -> list[str]:
  """Returns the text of every process, in order of process."""
  if jax.process_count() == 1:
    return [text]
  raw = np.frombuffer(text.encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.asarray([raw.size], np.int32)).reshape(-1)
  rows = multihost_utils.process_allgather(np.pad(raw, (0, int(sizes.max()) - raw.size)))
  return [bytes(np.asarray(row, np.uint8)[:n]).decode() for row, n in zip(rows, sizes)]


def from_first(function: Callable[[], Any]) -> Any:
  """Returns on every process the JSON value of `function` on process 0; an exception there ends all processes.

  Raises:
    Mistake: process 0 raised one, or failed at a file.
  """
  if jax.process_count() == 1:
    return function()
  value: dict[str, Any] = {}
  if jax.process_index() == 0:
    try:
      value = {"value": function()}
    except (Mistake, OSError) as error:  # the others wait for a word from here
      value = {"error": str(error)}
    except Exception as error:
      value = {"error": f"{type(error).__name__}: {error}"}
  value = json.loads(gather(json.dumps(value))[0])
  if "error" in value:
    raise Mistake(value["error"])
  return value["value"]


def warn_of_same_rows(batch: Mapping[str, np.ndarray], later: Iterable[Mapping[str, np.ndarray]] = ()) -> None:
  """Warns where two processes have rows in common: a task of one's own may give the same ones to several of them.

  Args:
    later: the batches after the first, of which a single process draws none.
  """
  if jax.process_count() == 1:
    return
  found = [text.split() for text in gather(" ".join(itertools.chain(*map(digests, (batch, *later)))))]
  shared = shared_rows(found)
  if shared and jax.process_index() == 0:
    (one, other), count = max(shared.items(), key=lambda item: item[1])
    more = f" ({len(shared)} pairs of processes share rows)" if len(shared) > 1 else ""
    absl_logging.warning(
      "processes %d and %d share %d of their first %d rows%s; data.name's train(process_index, process_count) must "
      "give each process rows of its own, or they are trained on more than once. A small data set may have them twice.",
      *(one, other, count, len(found[other]), more),
    )


def digests(batch: Mapping[str, np.ndarray]) -> Iterator[str]:
  """Yields a digest of each row, of all of its arrays."""
  arrays = [np.ascontiguousarray(batch[key]) for key in sorted(batch)]
  for row in zip(*arrays, strict=True):
    yield hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=8).hexdigest()


def shared_rows(found: Sequence[Sequence[str]]) -> dict[tuple[int, int], int]:
  """Returns how many rows are shared, by the numbers of two processes: the first that has a row, and a later one.

  A row that one process alone has twice is left out: the data repeats it, as data of few rows must.

  Args:
    found: the digests of each process's rows.
  """
  repeated = {digest for own in found for digest, times in collections.Counter(own).items() if times > 1}
  first: dict[str, int] = {}
  shared: collections.Counter[tuple[int, int]] = collections.Counter()
  for number, own in enumerate(found):
    for digest in set(own) - repeated:
      if first.setdefault(digest, number) < number:
        shared[first[digest], number] += 1
  return dict(shared)
