"""Many prompts, from a file to lines of JSON; and a conversation that keeps its state."""

import io
import json
import os
import signal

import jax
import pytest

from data.task import build_task
from inference import chat as chat_lib
from inference import generate, make_sampler, saved
from inference.completions import complete, joined, read_prompts, write_lines
from inference.context import fork
from inference.text_model import TextModel
from inference.tokenizer import OfTask
from mistake import Mistake
from tests.inference.models import language_model, variables_of
from tests.refused import refused

BYTES = OfTask(build_task("bytes"))
PROMPTS = ["abc", "a longer one", "z"]
SETTINGS = dict(tokens=6, temperature=1.0, seed=3)
# a model of other tokens, without variables
OTHER = (language_model("m"), {})


@pytest.fixture(scope="module")
def text_model():
  model = language_model("ma", vocab=256)
  return TextModel(model, variables_of(model), BYTES, **SETTINGS, prompt="unused")


@pytest.fixture(scope="module")
def found(text_model):
  return list(text_model.complete(PROMPTS))


def test_completions_do_not_depend_on_the_batch(text_model, found):
  assert [row["prompt"] for row in found] == PROMPTS
  assert list(text_model.complete(PROMPTS, batch=1)) == [
    {**row, "logprobs": pytest.approx(row["logprobs"], abs=1e-4)} for row in found
  ]
  assert all(len(row["tokens"]) == len(row["logprobs"]) == 6 for row in found)
  assert found[0]["completion"] == bytes(found[0]["tokens"]).decode(errors="replace")
  assert text_model.generate(PROMPTS[0]) == found[0]["completion"]


def test_several_completions_of_a_prompt_are_neighbours(text_model):
  rows = list(text_model.complete(PROMPTS[:2], num_return_sequences=2))
  assert [row["prompt"] for row in rows] == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2
  assert rows[0]["tokens"] != rows[1]["tokens"]


def test_one_text_is_one_prompt_and_one_stop(text_model):
  assert list(text_model.complete("abc")) == list(text_model.complete(["abc"]))
  assert text_model.chat(stop="ab").stop == ["ab"]


@pytest.mark.parametrize("name", ["tokens", "top_k", "seed"])
def test_what_is_counted_is_a_whole_number(text_model, name):
  refused(f"{name}=2.5; give a whole number", text_model.generate, "abc", **{name: 2.5})


def test_a_seed_that_would_be_another_is_refused(text_model):
  refused("seed=1099511627776; give a whole number of 32 bits", text_model.generate, "abc", seed=2**40)


def test_beams_come_with_scores_the_best_first(text_model):
  rows = list(text_model.complete(PROMPTS, num_beams=3, num_return_sequences=2))
  assert [set(row) for row in rows] == [{"prompt", "completion", "tokens", "score"}] * 6
  assert all(rows[i]["score"] >= rows[i + 1]["score"] for i in (0, 2, 4))


def test_a_draft_model_changes_no_greedy_text(text_model):
  """Nor the replies of a conversation; how often the model was asked stands in the lines."""
  draft, greedy = language_model("m", vocab=256), dict(temperature=0, logit_bias=["32=-inf"])
  settings = greedy | dict(draft=(draft, variables_of(draft)), num_speculative_tokens=2)
  want, rows = (list(text_model.complete(PROMPTS, **some)) for some in (greedy, settings))
  assert [row["tokens"] for row in rows] == [row["tokens"] for row in want]
  assert all(1 <= row["rounds"] <= 6 and "logprobs" not in row for row in rows)
  assert text_model.generate("abc", **settings) == want[0]["completion"]
  alone, helped = text_model.chat(**greedy), text_model.chat(**settings)
  for line in ("hello\n", "and\n"):
    assert "".join(helped.reply(line)) == "".join(alone.reply(line))
  refused("not of the draft model's state; leave --draft out", lambda: helped.command("/load talk"))


def test_a_stop_cuts_the_completion_and_a_padded_vocabulary_is_never_drawn(text_model, found):
  stop = chr(found[0]["tokens"][2]) if found[0]["tokens"][2] < 128 else None
  bias = {token: -1e9 for token in range(128, 256)}
  row = next(text_model.complete(PROMPTS[:1], logit_bias=bias))
  cut = next(text_model.complete(PROMPTS[:1], logit_bias=bias, stop=[row["completion"][2]]))
  assert cut["completion"] == row["completion"][: row["completion"].index(row["completion"][2])]
  assert stop is None or stop not in next(text_model.complete(PROMPTS[:1], stop=[stop]))["completion"]
  few = OfTask(build_task("bytes"))
  few.size = 100
  rows = complete(text_model.model, text_model.variables, few, PROMPTS, **SETTINGS | {"tokens": 16})
  assert max(token for row in rows for token in row["tokens"]) < 100


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(prompts=["a", ""]), "prompt 2 is empty"),
    (dict(tokens=5000), "the prompt is number 1 and the model has max_len=4096"),
    (dict(num_beams=0), "num_beams=0; give at least 1"),
    (dict(num_beams=2, num_return_sequences=3), "num_beams=2; give at least 3"),
    (dict(batch=0), "batch=0"),
    (dict(num_speculative_tokens=0), "num_speculative_tokens=0; give at least 1"),
    (dict(num_beams=2, draft=OTHER), "num_beams=2 with a draft model"),
    (dict(draft=OTHER), "the draft model has vocab=11 and the model 256"),
    (dict(logit_bias=["10"]), "logit_bias has '10'; write TOKEN=VALUE"),
    (dict(logit_bias=["10=1", "10=2"]), "logit_bias has token 10 twice"),
    (dict(logit_bias=["256=1"]), r"logit_bias names token 256; the model's tokens are 0 … 255"),
    (dict(temperature=0, num_return_sequences=2), "num_return_sequences=2 at temperature 0"),
    (dict(top_q=1), r"generate has no 'top_q' \(did you mean 'top_p'\?\)"),
  ],
)
def test_mistakes_are_found_before_the_first_completion(text_model, kwargs, message):
  kwargs = dict(prompts=PROMPTS) | kwargs
  refused(message, lambda: text_model.complete(kwargs.pop("prompts"), **kwargs))


def test_prompts_are_read_and_lines_written(tmp_path):
  (tmp_path / "p.txt").write_text("one\ntwo\n")
  # one prompt a line as JSON has lines: U+2028 may stand in a text
  (tmp_path / "p.jsonl").write_text('\ufeff{"prompt": "one", "id": 7}\r\n{"prompt": "tw\\u00f6", "note": "\u2028"}\n')
  assert read_prompts(tmp_path / "p.txt") == [{"prompt": "one"}, {"prompt": "two"}]
  records = read_prompts(tmp_path / "p.jsonl")
  assert records == [{"prompt": "one", "id": 7}, {"prompt": "twö", "note": "\u2028"}]
  completions = [{"prompt": "one", "completion": "1"}, {"prompt": "twö", "completion": "2"}]
  write_lines(tmp_path / "out.jsonl", joined(records, completions, 1))
  rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
  assert rows == [{"prompt": "one", "id": 7, "completion": "1"}, {"prompt": "twö", "note": "\u2028", "completion": "2"}]


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("no.txt", None, "does not exist"),
    ("p.txt", b"", "is empty"),
    ("p.txt", b"a\n\nb\n", "line 2: no prompt"),
    ("p.txt", b"a\nb\xff", "is not UTF-8 .line 2.; save it as UTF-8"),
    ("p.json", b'[{"prompt": "a"}]', "p.json ends neither in .txt nor in .jsonl"),
    ("p", b"a", "ends neither in .txt nor in .jsonl"),
    ("p.jsonl", b"{", "line 1: no JSON"),
    ("P.JSONL", b"{", "line 1: no JSON"),
    ("p.jsonl", b'{"text": "a"}', "line 1: no prompt"),
    ("p.jsonl", b"3", "line 1: no prompt"),
    ("p.jsonl", b"[" * 100_000, "line 1: no JSON"),
    ("p.jsonl", b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}", "line 1: no JSON"),
    ("..", None, "is no file"),
  ],
)
def test_files_without_prompts_are_refused(tmp_path, name, content, message):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  refused(message, read_prompts, tmp_path / name)


def test_nothing_half_written_stays(tmp_path):
  def broken():
    yield {"prompt": "a"}
    raise ValueError("on the way")

  refused("on the way", lambda: write_lines(tmp_path / "out.jsonl", broken()))
  assert not list(tmp_path.iterdir())
  for out, message in (
    (tmp_path / "none" / "out.jsonl", "the folder .*none does not exist"),
    (tmp_path, "is a folder"),
    ("", "is a folder or no name"),
    ("a\0b", "is a folder or no name"),
    (tmp_path / ("x" * 300), "cannot be written: File name too long"),
  ):
    refused(message, write_lines, out, [])
  assert not list(tmp_path.iterdir())


def test_a_pipe_or_a_device_is_written_to_and_not_replaced(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
  write_lines(tmp_path / "pipe", [{"prompt": "a"}])
  assert os.read(reader, 100) == b'{"prompt": "a"}\n'
  assert (tmp_path / "pipe").is_fifo()
  os.close(reader)


def test_a_conversation_is_one_text(text_model, tmp_path):
  chat = text_model.chat()
  replies = [list("".join(chat.reply(text))) and chat.context for text in ("hello\n", "and\n")]
  model, variables = text_model.model, text_model.variables
  settings = dict(max_new_tokens=6, sampler=make_sampler(), rng=jax.random.key(3))
  first = generate(model, variables, [BYTES.encode("hello\n")], room=64, **settings)
  second = generate(model, variables, [BYTES.encode("and\n")], context=first.context, **settings)
  assert replies[1].recent[0, -6:].tolist() == second.rows()[0]
  # the same again after it was saved, reset and loaded
  path = tmp_path / "talk"
  assert "saved" in chat.command(f"/save {path}")
  want = "".join(chat.reply("more\n"))
  chat.command("/reset")
  assert chat.context is None
  chat.command(f"/load {path}")
  assert "".join(chat.reply("more\n")) == want


def test_a_pipe_is_answered_line_by_line(text_model, capsys):
  out = io.StringIO()
  chat_lib.talk(text_model.chat(), io.StringIO("hello\n/reset\nhello\n/none\n/quit\nnever read\n"), out)
  error = capsys.readouterr().err
  assert "the conversation starts anew" in error
  assert "'/none' cannot be done" in error
  one = text_model.chat()
  reply = "".join(one.reply("hello\n"))
  # the output of a pipe says what is answered
  assert out.getvalue() == 2 * ("> hello\n" + chat_lib.printable(reply) + "\n")


def test_commands_of_a_chat_that_cannot_be_obeyed_say_why(text_model, tmp_path):
  chat = text_model.chat()
  for line, message in (
    (f"/save {tmp_path}/t", "there is nothing to save before a reply"),
    ("/save", "/save needs a file"),
    ("/load", "/load needs a file"),
    ("/sing", "'/sing' cannot be done; /reset starts anew"),
  ):
    refused(message, lambda line=line: chat.command(line))
  "".join(chat.reply("hello\n"))
  saved.save(tmp_path / "two", text_model.model, text_model.variables, fork(chat.context, 2))
  refused("the file holds 2 texts", lambda: chat.command(f"/load {tmp_path}/two"))
  (tmp_path / "two").unlink()
  chat.command("/reset")
  refused("nothing to save before a reply", lambda: chat.command(f"/save {tmp_path}/t"))
  assert not list(tmp_path.iterdir())


def test_ctrl_c_stops_the_reply_and_not_the_program(text_model):
  chat = text_model.chat(tokens=40)
  out = io.StringIO()
  written = out.write

  def write(text: str) -> int:
    if out.getvalue() == "> hello\n":
      os.kill(os.getpid(), signal.SIGINT)
    return written(text)

  out.write = write
  before = signal.getsignal(signal.SIGINT)
  chat_lib.talk(chat, io.StringIO("hello\n"), out)
  assert signal.getsignal(signal.SIGINT) == before
  assert int(chat.context.state.position[0]) == len("hello\n") + chat_lib.CHUNK - 1
  assert "".join(chat.reply("go on\n"))


def test_a_full_conversation_says_so(text_model):
  chat = text_model.chat(room=16, tokens=6)
  "".join(chat.reply("0123456\n"))
  refused("9 tokens do not fit the 2 that are left; /reset starts anew", lambda: "".join(chat.reply("01234567\n")))


def test_a_reply_that_fails_leaves_the_conversation_as_it_was(text_model, monkeypatch):
  chat = text_model.chat(tokens=40)
  "".join(chat.reply("hello\n"))
  before, real = chat.context, chat_lib.stream

  def failing(*args, **kwargs):
    pieces = real(*args, **kwargs)
    yield next(pieces)
    # as where the next piece meets NaN logits, after it has used up the context
    next(pieces)
    raise Mistake("NaN logits")

  monkeypatch.setattr(chat_lib, "stream", failing)
  with pytest.raises(Mistake, match="NaN logits"):
    "".join(chat.reply("more\n"))
  monkeypatch.setattr(chat_lib, "stream", real)
  assert chat.context is before
  assert "".join(chat.reply("more\n"))
