"""A tokenizer of the library's form that needs no library: bytes, ten pairs of them, and an end."""

from pathlib import Path
from types import SimpleNamespace

PAIRS = (b"e ", b"th", b"s ", b"in", b"er", b"an", b"re", b" a", b"on", b"at")
END, SIZE = 266, 267


class Pairs:
  """Tokens are the bytes of a text, but for ten pairs, which are taken from the left."""

  @classmethod
  def from_file(cls, path):
    assert Path(path).name == "tokenizer.json"
    return cls()

  def get_vocab(self, _added):
    return {str(number): number for number in range(SIZE)}

  def token_to_id(self, token):
    return {"<end>": END}[token]

  def encode(self, text, add_special_tokens):
    raw, ids = text.encode(), []
    while raw:
      pair = raw[:2] in PAIRS
      ids.append(256 + PAIRS.index(raw[:2]) if pair else raw[0])
      raw = raw[1 + pair :]
    return SimpleNamespace(ids=ids)

  def decode(self, tokens, skip_special_tokens):
    texts = [bytes([token]) if token < 256 else PAIRS[token - 256] for token in tokens if token != END]
    return b"".join(texts).decode(errors="replace")


LIBRARY = SimpleNamespace(Tokenizer=Pairs)


def write(folder):
  """Makes a folder with the tokenizer's files."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "tokenizer.json").write_text("{}")
  (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
  return folder
