"""What generated text looks like on a terminal, a pipe and a file, whatever its bytes are."""

import io
import os
import subprocess
import sys

import flax.linen as nn
import numpy as np
import pytest

from data.task import build_task
from inference import stream as streams
from tests import sources


def write(monkeypatch, raw: bytes, prompt: str, out, *, size: int = 1) -> str:
  pieces = [np.frombuffer(raw[i : i + size], np.uint8) for i in range(0, len(raw), size)]
  monkeypatch.setattr(streams, "stream", lambda *_, **__: iter(pieces))
  return streams.write(nn.Dense(1), {}, build_task("bytes"), prompt=prompt, tokens=len(raw), out=out)


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
import numpy as np
from inference import stream
from data.task import build_task
stream.stream = lambda *_, **__: iter([np.full(999, 97)] * 999)
stream.write(None, {}, build_task("bytes"), prompt="", tokens=4)
"""


def test_a_program_goes_on_without_its_reader():
  command = f"{sys.executable} -c '{READER}' | head -c 5"
  done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=sources.ROOT, capture_output=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, b"aaaaa", b"")
