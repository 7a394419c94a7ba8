"""Writes the text of a config as the tokens of a tokenizer, into a folder that configs/tokens.py:dir=FOLDER reads.

  ./dev tokenize --config 'configs/text.py:files=notes/*.txt' --tokenizer FOLDER --out tokens/notes [--jobs 4]

The text is that of any config of text, with what it holds out. The tokenizer is a folder of a released model, or its
file: `tokenizer.json`, or `.model` of SentencePiece. Files that are there are checked against their checksums and kept,
so that the same command goes on where it was stopped, and mends what is damaged. The whole text is in memory meanwhile.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ending
from arguments import Parser
from data import token_shards
from data.packing import Document, PackedText
from data.task import build_task
from inference import tokenizer
from inference.tokenizer import Tokenizer
from mistake import Mistake
from scripts.workers import spread
from training import settings
from training.workdir import write_json

# bytes of text in a pair of files, unless one document is larger
SHARD = 1 << 25
PLAN = "plan.json"
UINT16 = 1 << 16


class Job(NamedTuple):
  """The documents of one pair of files."""

  split: str
  number: int
  texts: list[bytes]


def encode(one: Tokenizer, text: bytes) -> tuple[list[int], int]:
  """Returns a document's tokens between those that begin and end texts, and the bytes that are predicted.

  A tokenizer that puts nothing before a text has its end token there, which its models have seen before texts, too.
  """
  begin = one.end if one.begin is None else one.begin
  body = one.encode(text.decode("utf-8", "replace"), begin=False).tolist()
  scored = len(text)
  if begin is None and body:
    first = one.decode(np.asarray(body[:1], np.int32))
    scored -= len(first if isinstance(first, bytes) else first.encode())
  whole = [*([] if begin is None else [begin]), *body, *([] if one.end is None else [one.end])]
  return whole, max(scored, 0)


@functools.lru_cache(maxsize=1)
def opened(path: Path) -> Tokenizer:
  """Opens the tokenizer of a process."""
  return tokenizer.open_file(path)


def make_part(folder: Path, path: Path, job: Job) -> dict[str, Any]:
  """Writes one pair of files, then the facts about them, and returns these."""
  one = opened(path)
  pieces, scored = zip(*(encode(one, text) for text in job.texts))
  sizes = np.array([len(piece) for piece in pieces])
  kind = np.uint16 if one.size <= UINT16 else np.uint32
  tokens = np.concatenate([np.asarray(piece, kind) for piece in pieces])
  starts = np.cumsum(sizes, dtype=np.int64) - sizes
  # a document without a token starts nowhere
  starts = starts[sizes > 0]
  checksums = {}
  for name, array in zip(token_shards.names(job.split, job.number), (tokens, starts)):
    with ending.unfinished(folder / name) as partial:
      with partial.open("wb") as file:
        np.save(file, array)
      checksums[name] = sha256(partial)
  facts = dict(documents=len(starts), tokens=len(tokens), bytes=sum(map(len, job.texts)), scored_bytes=sum(scored))
  write_json(folder / facts_name(job), {**facts, "sha256": checksums})
  return facts


def facts_name(job: Job) -> str:
  """Returns the name of the file that says that a pair of files is finished."""
  return f"{job.split}-{job.number:05}.json"


def sha256(path: Path) -> str:
  """Computes the checksum of a file."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def finished(folder: Path, job: Job) -> dict[str, Any] | None:
  """Returns the facts of a pair of files, if both are as they were written."""
  try:
    facts = json.loads((folder / facts_name(job)).read_text())
    checksums = facts.pop("sha256")
    intact = all(sha256(folder / name) == checksums[name] for name in token_shards.names(job.split, job.number))
  except (OSError, ValueError, KeyError, AttributeError):
    return None
  return facts if intact else None


def jobs(splits: dict[str, Sequence[Document]], size: int) -> Iterator[Job]:
  """Cuts the documents of each split into parts of about `size` bytes."""
  for split, documents in splits.items():
    ends = itertools.accumulate(len(document.text) for document in documents)
    parts = itertools.groupby(zip(ends, documents), lambda pair: (pair[0] - 1) // size)
    for number, (_, pairs) in enumerate(parts):
      yield Job(split, number, [document.text for _, document in pairs])


def find_tokenizer(name: str) -> Path:
  """Finds the file of a tokenizer, given by itself or by its folder.

  Raises:
    Mistake: there is none, or it cannot be read.
  """
  path = Path(name).expanduser()
  file = tokenizer.file(path) if path.is_dir() else path
  if file is None or not file.is_file():
    raise Mistake(f"--tokenizer={name} is no tokenizer's file, nor a folder with {tokenizer.JSON} or one .model")
  tokenizer.open_file(file)
  return file


def prepare(folder: Path, task: PackedText, path: Path, size: int) -> None:
  """Makes the folder with the tokenizer and the plan of what it holds; a plan that is there must be the same.

  Raises:
    Mistake: the folder holds something else.
  """
  plan = {"text": task.describe()["sha256"], "tokenizer": sha256(path), "shard": size}
  try:
    before = json.loads((folder / PLAN).read_text())
  except (OSError, ValueError):
    before = None
  if folder.exists() and before != plan and any(folder.iterdir()):
    what = "the tokens of another text or tokenizer" if before else "something else"
    raise Mistake(f"--out={folder} holds {what}; give a new folder")
  folder.mkdir(parents=True, exist_ok=True)
  write_json(folder / PLAN, plan)
  name = path.name if path.suffix == ".model" else tokenizer.JSON
  for source, target in ((path, name), (path.with_name(tokenizer.SETTINGS), tokenizer.SETTINGS)):
    if source.is_file():
      shutil.copyfile(source, folder / target)


def make(folder: Path, task: PackedText, path: Path, *, workers: int, size: int = SHARD) -> dict[str, Any]:
  """Writes what is missing of a folder, and returns what its tokens.json says."""
  prepare(folder, task, path, size)
  facts: dict[tuple[str, int], dict[str, Any]] = {}
  missing = []
  for job in jobs(dict(task.splits), size):
    part_facts = finished(folder, job)
    if part_facts is None:
      missing.append(job)
    else:
      facts[job.split, job.number] = part_facts
  began, done = time.monotonic(), 0
  if missing:
    there = f"; {len(facts)} are there already" if facts else ""
    print(f"writing {len(missing)} files of tokens into {folder}{there}", flush=True)
  write = functools.partial(make_part, folder, path)
  for job, part_facts in zip(missing, spread(write, missing, min(workers, len(missing)))):
    facts[job.split, job.number] = part_facts
    done += part_facts["bytes"]
    print(f"{done:,} bytes in {time.monotonic() - began:.0f} s", flush=True)
  splits: dict[str, list[dict[str, Any]]] = {}
  for (split, _), part_facts in sorted(facts.items()):
    splits.setdefault(split, []).append(part_facts)
  one = opened(path)
  manifest = {
    "form": token_shards.FORM,
    "vocab": one.size,
    "sha256": task.describe()["sha256"],
    "tokenizer": {"name": path.name, "sha256": sha256(path), "begin": one.begin, "end": one.end},
    "splits": splits,
  }
  write_json(folder / token_shards.MANIFEST, manifest)
  return manifest


def main(arguments: Sequence[str]) -> int:
  """Does what the command line asks for, and returns the exit code: 2 for a mistake, in one line."""
  parser = Parser(prog="./dev tokenize", description=str(__doc__).splitlines()[0])
  parser.add_argument("--config", required=True, help="a config of text, FILE.py[:key=value,…]")
  parser.add_argument("--tokenizer", required=True, help="a tokenizer's file, or a released model's folder")
  parser.add_argument("--out", required=True, type=Path, help="the folder to make, or to go on with")
  parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; as many as there are cores")
  args = parser.parse_args(arguments)
  try:
    task = build_task(**settings.load(args.config).data.to_dict())
    if not isinstance(task, PackedText):
      raise Mistake(f"--config={args.config} is no text but {type(task).__name__}; give e.g. configs/text.py:files=…")
    if args.jobs < 1:
      raise Mistake(f"--jobs={args.jobs}; give at least 1")
    made = make(args.out.expanduser(), task, find_tokenizer(args.tokenizer), workers=args.jobs)
  except (Mistake, OSError) as error:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  folder = token_shards.TokenFolder(args.out, made)
  for split in folder.splits:
    size = folder.size(split)
    each = f"{size.bytes_per_target:.2f} bytes a token"
    print(f"{split}: {size.documents:,} documents, {size.bytes:,} bytes, {size.tokens:,} tokens, {each}")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
