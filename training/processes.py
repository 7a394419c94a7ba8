"""Exchanges texts and values between the processes of a run."""

import hashlib
import json
from collections.abc import Callable, Mapping
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


def warn_of_same_rows(batch: Mapping[str, np.ndarray]) -> None:
  """Warns where two processes have the same rows: a task of one's own may make the same share for all of them."""
  rows = b"".join(np.ascontiguousarray(batch[key]).tobytes() for key in sorted(batch))
  found = gather(hashlib.sha256(rows).hexdigest())
  same = [number for number, digest in enumerate(found) if found.index(digest) < number]
  if same and jax.process_index() == 0:
    absl_logging.warning(
      "processes %d and %d begin with the same rows; data.name's train(process_index, process_count) must give each "
      "process rows of its own, or they are trained on more than once.",
      found.index(found[same[0]]),
      same[0],
    )
