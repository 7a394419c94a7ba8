"""What generated text looks like on a terminal, a pipe and a file, whatever its bytes are."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from data.task import build_task
from inference import text as texts
from inference.tokenizer import OfTask
from tests import sources
from tests.inference.models import language_model


def write(monkeypatch, raw: bytes, prompt: str, out, *, size: int = 1, stop=()) -> str:
  cut = [np.frombuffer(raw[i : i + size], np.uint8) for i in range(0, len(raw), size)]
  monkeypatch.setattr(texts, "pieces", lambda *_, **__: iter(cut))
  model = language_model("m", vocab=256)
  return texts.write(model, {}, OfTask(build_task("bytes")), prompt=prompt, tokens=len(raw), stop=stop, out=out)


def test_only_controls_and_escapes_are_replaced(monkeypatch):
  # no-break, ideographic, narrow and zero-width spaces, joiners, private use, line separator
  shown = "a\u00a0b\u3000c\u202fd\u200be\u200d\u200cf\ue000g\u2028h\r\n\ti"
  hidden = "\x00\x07\x08\x1b\x7f\x80\x9b\x9f"
  out = io.StringIO()
  assert write(monkeypatch, (shown + hidden).encode(), "", out) == shown + hidden
  assert out.getvalue() == shown + "\ufffd" * len(hidden) + "\n"


def test_a_prompt_may_be_bytes_that_are_no_text(monkeypatch):
  # as Python decodes command lines; the last byte begins a character that the model ends
  prompt = os.fsdecode(b"a\xffb\xe2\x98")
  out = io.StringIO()
  write(monkeypatch, "\u2603".encode()[2:] + b"!", prompt, out)
  assert out.getvalue() == "a\ufffdb\u2603!\n"
  assert build_task("bytes").encode(prompt).tolist() == list(b"a\xffb\xe2\x98")
  with pytest.raises(ValueError, match=r"the text has '\\ud800' at 1, half of a surrogate pair"):
    build_task("bytes").encode("a\ud800")


def test_characters_cut_by_a_call_are_written_whole(monkeypatch):
  out = io.StringIO()
  assert write(monkeypatch, "naïve ☃ €".encode(), "so ", out) == "naïve ☃ €"
  assert out.getvalue() == "so naïve ☃ €\n"


def test_bytes_that_are_no_text_are_replaced(monkeypatch):
  assert write(monkeypatch, b"A\xffB\xe2", "", io.StringIO(), size=2) == "A\ufffdB\ufffd"


def test_control_characters_do_not_reach_the_terminal(monkeypatch):
  out = io.StringIO()
  assert write(monkeypatch, b"a\x1b[31m\tb\r\n", "", out) == "a\x1b[31m\tb\r\n"
  assert out.getvalue() == "a\ufffd[31m\tb\r\n\n"


@pytest.mark.parametrize(
  "kwargs, message",
  [
    (dict(prompt=""), "the prompt has no tokens"),
    (dict(tokens=0), "tokens=0"),
    (dict(tokens=5000), "max_len=4096"),
    (dict(top_p=0.0), r"top_p=0\.0"),
    (dict(stop=("",)), "stop has an empty text"),
  ],
)
def test_what_cannot_be_written_is_an_error_before_anything_is_printed(kwargs, message):
  kwargs, out = dict(prompt="a", tokens=4) | kwargs, io.StringIO()
  model = language_model("a", vocab=256)
  with pytest.raises(ValueError, match=message):
    texts.write(model, {}, OfTask(build_task("bytes")), out=out, **kwargs)
  assert out.getvalue() == ""


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize(
  "raw, stop, text",
  [("one\n\ntwo", ["\n\n"], "one"), ("a user: b", ["us", "user:"], "a "), ("usage\n", ["use", "\n\n"], "usage\n")],
)
def test_a_text_ends_before_a_stop_however_it_comes(monkeypatch, raw, stop, text, size):
  out = io.StringIO()
  assert write(monkeypatch, raw.encode(), ">", out, size=size, stop=stop) == text
  assert out.getvalue() == f">{text}\n"


def test_a_terminal_without_the_characters_shows_question_marks(monkeypatch):
  raw = io.BytesIO()
  out = io.TextIOWrapper(raw, "ascii")
  assert write(monkeypatch, "é ☃!".encode(), "ä", out) == "é ☃!"
  assert raw.getvalue() == b"?? ?!\n"


def test_a_reader_that_goes_away_is_no_error(monkeypatch):
  out = io.StringIO()
  monkeypatch.setattr(out, "flush", lambda: (_ for _ in ()).throw(BrokenPipeError))
  assert write(monkeypatch, b"abc", "", out) == "a"


READER = """
import sys
import numpy as np
from inference import text
from data.task import build_task
text.pieces = lambda *_, **__: iter([np.full(999, 97)] * 999)
from types import SimpleNamespace
from inference.tokenizer import OfTask
model = SimpleNamespace(vocab=256)
text.write(model, {}, OfTask(build_task("bytes")), prompt="", tokens=4, out=sys.stdout)
"""


def test_a_program_goes_on_without_its_reader():
  command = f"{sys.executable} -c '{READER}' | head -c 5"
  done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=sources.ROOT, capture_output=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, b"aaaaa", b"")
