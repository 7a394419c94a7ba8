"""Tokenizers of a run's folder: text comes back whole, however tokens come, and what does not fit is refused."""

import json
import sys

import numpy as np
import pytest
import sentencepiece
import tokenizers

from data.task import build_task
from inference.tokenizer import Decoder, OfTask, as_text, checked, find
from tests.refused import refused

TEXT = "the naïve cat ☃ sat, the cat sat on the mat. " * 20
BYTES = build_task("bytes")


@pytest.fixture
def json_folder(tmp_path):
  """A folder with a tokenizer of byte pairs."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
  trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"])
  made.train_from_iterator([TEXT], trainer)
  made.save(str(tmp_path / "tokenizer.json"))
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))
  return tmp_path


@pytest.fixture
def model_folder(tmp_path):
  """A folder with a SentencePiece model whose texts begin with a token of their own."""
  (tmp_path / "text").write_text(TEXT)
  sentencepiece.SentencePieceTrainer.train(
    input=str(tmp_path / "text"),
    model_prefix=str(tmp_path / "spiece"),
    vocab_size=290,
    byte_fallback=True,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return tmp_path


@pytest.mark.parametrize("folder", ["json_folder", "model_folder"])
def test_a_folders_tokenizer_gives_text_back_piece_by_piece(folder, request):
  found = find(request.getfixturevalue(folder), BYTES, 512)
  tokens = found.encode("the cat ☃ naïve")
  assert len(tokens) < len("the cat ☃ naïve".encode())
  assert found.end is not None
  more = found.encode(" ☃ the mat, €", begin=False)
  whole = found.decode(np.concatenate([tokens, more]))
  for size in (1, 2, 50):
    decoder = Decoder(found, before=tokens)
    pieces = [decoder.push(more[i : i + size]) for i in range(0, len(more), size)]
    text = "".join(pieces) + decoder.push([], last=True)
    assert found.decode(tokens) + text == whole
    assert "\ufffd" not in text


def test_begin_tokens_stand_before_the_first_text_alone(model_folder):
  found = find(model_folder, BYTES, 300)
  first = found.encode("cat")
  assert first[1:].tolist() == found.encode("cat", begin=False).tolist()


def test_bytes_are_the_tokens_otherwise(tmp_path):
  found = find(tmp_path, BYTES, 256)
  assert found.encode("aé").tolist() == list("aé".encode())
  decoder = Decoder(found)
  assert [decoder.push([byte]) for byte in "aé€".encode()] == ["a", "", "é", "", "", "€"]
  assert (found.size, found.end) == (256, None)


@pytest.mark.parametrize(
  "vocab, fits", [(299, False), (300, True), (304, True), (512, True), (513, False), (None, False)]
)
def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path, vocab, fits):
  tokenizer = OfTask(BYTES)
  tokenizer.size = 300
  if fits:
    assert checked(tokenizer, tmp_path, vocab) is tokenizer
    return
  refused(f"has 300 tokens, but the model has vocab={vocab}; it must have as many", checked, tokenizer, tmp_path, vocab)


def test_what_is_no_tokenizer_is_refused(tmp_path, monkeypatch):
  refused("task MQAR has no text", lambda: find(tmp_path, build_task("mqar"), 256))
  refused(r"has no tokenizer, tokenizer\.json or \*\.model", find, str(tmp_path), None, 256)
  (tmp_path / "a.model").touch()
  (tmp_path / "b.model").touch()
  refused("has 2 tokenizers, a.model, b.model; leave one", find, tmp_path, BYTES, 256)
  (tmp_path / "tokenizer.json").write_text("{}")
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  refused("needs the package 'tokenizers', which is not installed; EXTRAS=text", find, tmp_path, BYTES, 256)


def test_a_broken_file_is_one_line(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{}")
  refused("tokenizer.json cannot be read", find, str(tmp_path), BYTES, 256)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_broken_settings_are_one_line(json_folder, text):
  (json_folder / "tokenizer_config.json").write_text(text)
  refused("tokenizer_config.json cannot be read", find, json_folder, BYTES, 300)


@pytest.mark.parametrize("prompt", [5, b"abc", ["a", "b"], None])
def test_what_is_no_text_is_refused(prompt):
  refused("is no text but (int|bytes|list|NoneType); give a str", as_text, prompt)
