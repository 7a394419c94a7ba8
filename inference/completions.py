"""Completions of many prompts: from a file of prompts to lines of JSON, batch by batch."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from inference import speculative, whole_file
from inference.beam import beam_search
from inference.context import check_counts
from inference.generate import PREFILL_CHUNK, check_room, generate
from inference.sampling import Sampler, make_bias, make_sampler
from inference.speculative import PROPOSALS, Draft, speculate
from inference.text import Stops, Stream, encoded_stops, known_only
from inference.tokenizer import Decoder, Tokenizer
from mistake import Mistake

Record = dict[str, Any]


def complete(
  model: nn.Module,
  variables: Mapping[str, Any],
  tokenizer: Tokenizer,
  prompts: Sequence[str],
  *,
  tokens: int,
  temperature: float | int = 1.0,
  top_k: int = 0,
  top_p: float | int = 1.0,
  min_p: float | int = 0.0,
  repetition_penalty: float | int = 1.0,
  stop: Sequence[str] = (),
  logit_bias: Mapping[int, float | int] | None = None,
  seed: int = 0,
  num_return_sequences: int = 1,
  num_beams: int = 1,
  length_penalty: float | int = 1.0,
  draft: Draft | None = None,
  num_speculative_tokens: int = PROPOSALS,
  batch: int = 8,
  prefill_chunk: int = PREFILL_CHUNK,
) -> Iterator[Record]:
  """Yields {"prompt", "completion", "tokens", "logprobs"} for each completion; all mistakes are found before the first.

  What is drawn for a prompt depends on `seed` and its place among the prompts, not on `batch`. With `num_beams` above 1
  nothing is drawn: the best `num_return_sequences` of the beams come, with "score" in place of "logprobs". With `draft`
  "rounds", how often the model was asked, is in that place.

  Args:
    tokens: at most so many are drawn; those that are, an end or a stop included, are in "tokens".
    stop: texts before which a completion ends.
    batch: prompts that are continued together.
    num_return_sequences, num_beams, length_penalty, prefill_chunk: see `inference.stream` and `beam_search`.
    draft, num_speculative_tokens: a cheaper model that proposes tokens; see `inference.speculative`.
  Raises:
    ValueError: a prompt is empty or too long, `batch` is below 1, there are fewer beams than sequences, or as for these
      two.
  """
  sampler = make_sampler(temperature, top_k, top_p, min_p, repetition_penalty)
  check_sizes(
    tokens=tokens,
    batch=batch,
    num_return_sequences=num_return_sequences,
    num_beams=num_beams,
    num_speculative_tokens=num_speculative_tokens,
    temperature=temperature,
  )
  encoded = _encoded(model, tokenizer, prompts, tokens, num_speculative_tokens if draft else 0)
  settings: dict[str, Any] = {
    "max_new_tokens": tokens,
    "stop": encoded_stops(tokenizer, stop),
    "logit_bias": known_only(tokenizer, model.vocab, logit_bias),
    "prefill_chunk": prefill_chunk,
  }
  make_bias(settings["logit_bias"], model.vocab)
  beams = {"num_beams": num_beams, "length_penalty": length_penalty, "repetition_penalty": repetition_penalty}
  settings |= _way(model, sampler, tokens, beams, draft, num_speculative_tokens)
  return _completions(model, variables, tokenizer, prompts, encoded, stop, seed, num_return_sequences, batch, settings)


def _way(
  model: nn.Module, sampler: Sampler, tokens: int, beams: dict[str, Any], draft: Draft | None, proposals: int
) -> dict[str, Any]:
  """Returns the settings of how tokens are found: from a draft model's proposals, by beams, or drawn one by one."""
  if draft is None:
    return {"sampler": sampler} if beams["num_beams"] == 1 else beams
  if beams["num_beams"] != 1:
    raise Mistake(
      f"generate: num_beams={beams['num_beams']} with a draft model, which proposes no beams; leave one out"
    )
  speculative.check(speculative.Pair(model, draft[0], sampler, proposals), tokens)
  return {"sampler": sampler, "draft": draft, "num_speculative_tokens": proposals}


def check_sizes(
  *,
  tokens: int = 1,
  batch: int = 1,
  num_return_sequences: int = 1,
  num_beams: int = 1,
  num_speculative_tokens: int = 1,
  temperature: float | int = 1.0,
) -> None:
  """Raises a Mistake where a size is below 1, there are fewer beams than sequences, or the sequences would be equal."""
  counts = dict(tokens=tokens, batch=batch, num_return_sequences=num_return_sequences, num_beams=num_beams)
  check_counts("generate", **counts, num_speculative_tokens=num_speculative_tokens)
  if 1 < num_beams < num_return_sequences:
    raise Mistake(
      f"generate: num_beams={num_beams}; give at least {num_return_sequences}, as num_return_sequences of them are kept"
    )
  if temperature == 0 and num_beams == 1 and num_return_sequences > 1:
    raise Mistake(
      f"generate: num_return_sequences={num_return_sequences} at temperature 0, which gives the same one each time; "
      f"give a temperature above 0, or num_beams={num_return_sequences}"
    )


def _encoded(
  model: nn.Module, tokenizer: Tokenizer, prompts: Sequence[str], tokens: int, proposed: int
) -> list[np.ndarray]:
  encoded = [tokenizer.encode(prompt) for prompt in prompts]
  for number, (prompt, row) in enumerate(zip(prompts, encoded), 1):
    if not prompt or not row.size:
      raise Mistake(f"generate: prompt {number} is empty; give some text to start from")
    check_room(model.longest, f"prompt is number {number} and the model has max_len", row.size, tokens, proposed)
  return encoded


def _completions(
  model: nn.Module,
  variables: Mapping[str, Any],
  tokenizer: Tokenizer,
  prompts: Sequence[str],
  encoded: Sequence[np.ndarray],
  stop: Sequence[str],
  seed: int,
  count: int,
  batch: int,
  settings: Mapping[str, Any],
) -> Iterator[Record]:
  for first in range(0, len(prompts), batch):
    chunk = encoded[first : first + batch]
    if "num_beams" in settings:
      results = beam_search(model, variables, chunk, **settings)
      rows = [
        {"tokens": np.asarray(tokens[:length]).tolist(), "score": float(score)}
        for some in zip(*(leaf[:, :count] for leaf in results))
        for tokens, length, score in zip(*some)
      ]
    else:
      number = np.arange(first * count, (first + len(chunk)) * count)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), number)
      drawing = _proposed if "draft" in settings else _drawn
      rows = drawing(model, variables, chunk, count, rng=keys, **settings)
    for index, row in enumerate(rows):
      which = first + index // count
      cut = Stops(stop)
      text = cut.push(Decoder(tokenizer, before=encoded[which]).push(row["tokens"], last=True), last=True)
      yield {"prompt": prompts[which], "completion": text, **row}


def _drawn(
  model: nn.Module, variables: Mapping[str, Any], prompts: Sequence[np.ndarray], count: int, **settings: Any
) -> list[Record]:
  drawn = generate(model, variables, prompts, num_return_sequences=count, **settings)
  logprobs = [row[: len(tokens)] for row, tokens in zip(np.asarray(drawn.logprobs).tolist(), drawn.rows())]
  return [{"tokens": tokens, "logprobs": values} for tokens, values in zip(drawn.rows(), logprobs)]


def _proposed(
  model: nn.Module,
  variables: Mapping[str, Any],
  prompts: Sequence[np.ndarray],
  count: int,
  *,
  draft: Draft,
  **settings: Any,
) -> list[Record]:
  repeated = [prompt for prompt in prompts for _ in range(count)]
  drawn = speculate(model, variables, *draft, repeated, **settings)
  rows = zip(np.asarray(drawn.tokens).tolist(), np.asarray(drawn.lengths), np.asarray(drawn.rounds).tolist())
  return [{"tokens": tokens[:length], "rounds": rounds} for tokens, length, rounds in rows]


def read_prompts(path: str | Path) -> list[Record]:
  """Returns the prompts of a file: one a line, or, of a .jsonl file, JSON objects with "prompt".

  Raises:
    ValueError: the file cannot be read, or a line has no prompt.
  """
  path = Path(path)
  if not path.is_file():
    what = "is no file" if path.exists() else "does not exist"
    raise Mistake(f"--prompts={path} {what}; give a .txt file with a prompt a line, or a .jsonl file")
  if path.suffix.lower() not in (".txt", ".jsonl"):
    raise Mistake(f"--prompts={path} ends neither in .txt nor in .jsonl; name it .txt for a prompt a line, or .jsonl")
  try:
    # not by `splitlines`, which also ends lines at characters that JSON and prompts may hold
    lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
  except UnicodeDecodeError as error:
    line = error.object.count(b"\n", 0, error.start) + 1
    raise Mistake(f"--prompts={path} is not UTF-8 (line {line}); save it as UTF-8") from None
  except OSError as error:
    raise Mistake(f"--prompts={path} cannot be read: {error.strerror}; give another file") from None
  if lines == [""]:
    raise Mistake(f"--prompts={path} is empty; give one prompt a line")
  return [_record(path, number, line) for number, line in enumerate(lines, 1)]


def _record(path: Path, number: int, line: str) -> Record:
  record: Any = {"prompt": line}
  if path.suffix.lower() == ".jsonl":
    try:
      record = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise Mistake(f"--prompts={path}, line {number}: no JSON ({error})") from None
  if not isinstance(record, dict) or not isinstance(record.get("prompt"), str) or not record["prompt"]:
    raise Mistake(
      f'--prompts={path}, line {number}: no prompt; each line is one, or {{"prompt": "…"}} in a .jsonl file'
    )
  return record


def write_lines(out: str | Path | None, records: Iterable[Record]) -> None:
  """Writes one line of JSON for each record, to a file that appears when it is whole, or to standard output.

  Raises:
    ValueError: as `whole_file.writing`.
  """
  if out is None:
    _dump(sys.stdout, records)
    return
  with whole_file.writing(out) as file:
    _dump(file, records)


def _dump(file: Stream, records: Iterable[Record]) -> None:
  for record in records:
    # ASCII, whatever the terminal's encoding is
    file.write(json.dumps(record) + "\n")
    file.flush()


def joined(records: Sequence[Record], completions: Iterable[Record], count: int) -> Iterator[Record]:
  """Yields each completion with the other fields of its prompt's record."""
  repeated = itertools.chain.from_iterable(itertools.repeat(record, count) for record in records)
  for record, completion in zip(repeated, completions):
    yield {**record, **completion}
