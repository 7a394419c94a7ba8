"""Scores of texts: those of the model's own forward, in any cut; the same through lm_eval's methods; and LAMBADA."""

import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data.task import build_task
from hybrids.model import build_model
from inference.text_model import TextModel
from inference.tokenizer import OfTask
from interop import harness, lambada
from interop.scores import Row, Score, Scorer, pair
from mistake import Mistake
from tests.contract.case import jit

PASSAGES = [
  "the cat sat on the mat and then the cat ate the rat",
  "a dog and a cat and a hen: the farmer called the dog, the cat and the hen",
  "one two",
]


@pytest.fixture(scope="module")
def mamba():
  """A model of bytes, drawn at random."""
  task = build_task("bytes", length=40)
  body = dict(name="stack", pattern="m", depth=1, letters={"m": dict(name="mamba", state=2)})
  model = build_model(task, width=8, body=body)
  rng = np.random.default_rng(0)
  variables = jit(model.init)(jax.random.key(0), np.zeros((1, 1), np.int32))
  variables = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype) * 0.3, variables)
  return TextModel(model, jax.tree.map(np.asarray, variables), OfTask(task), tokens=8)


def logprobs(one, tokens):
  """log p of each token but the first, in float64."""
  logits = np.asarray(jit(one.model.apply)(one.variables, np.asarray(tokens)[None]), np.float64)[0]
  logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
  return logits[np.arange(len(tokens) - 1), tokens[1:]], logits[:-1].argmax(-1) == tokens[1:]


def test_scores_are_those_of_the_forward_whatever_the_pieces(mamba):
  pairs = [lambada.split(passage) for passage in PASSAGES] + [("a ", "b"), ("", "xy")]
  rows = Scorer(mamba, batch=2, chunk=32).continuations(pairs)
  for (context, continuation), score in zip(pairs, rows):
    tokens = np.frombuffer((context + continuation).encode(), np.uint8).astype(np.int32)
    values, hits = logprobs(mamba, tokens)
    first = max(len(context.rstrip()), 1)
    np.testing.assert_allclose(score.logprob, values[first - 1 :].sum(), rtol=1e-5)
    assert score.greedy == hits[first - 1 :].all()
  texts = Scorer(mamba, batch=4, chunk=64).texts([*PASSAGES, "", "z"])
  for text, score in zip(PASSAGES, texts):
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int32)
    np.testing.assert_allclose(score, logprobs(mamba, tokens)[0].sum(), rtol=1e-5)
  assert texts[-2:] == [0, 0]


def test_a_text_beyond_the_models_room_is_read_in_windows_each_token_once():
  one = Scorer(SimpleNamespace(model=SimpleNamespace(longest=4, apply=None), variables=None, tokenizer=None))
  windows = list(one._windows(Row(np.arange(11), 1)))
  assert [window.tokens[window.first :].tolist() for window in windows] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
  assert [window.tokens.tolist() for window in windows][1:] == [[4, 5, 6, 7, 8], [6, 7, 8, 9, 10]]
  (cut,) = one._windows(Row(np.arange(11), 9))
  assert (cut.tokens.tolist(), cut.first) == ([6, 7, 8, 9, 10], 3)
  one._scores = lambda rows: [Score(row.first - len(row.tokens), greedy=bool(row.tokens[0] != 5)) for row in rows]
  # all nine tokens of a continuation count, and one that is not the likeliest is enough
  assert one._whole([Row(np.arange(11), 2), Row(np.arange(3), 2)]) == [Score(-9, greedy=False), Score(-1, greedy=True)]


def test_spaces_before_a_continuation_belong_to_it():
  one = OfTask(build_task("bytes"))
  assert pair(one, "ab ", "c").first == 2
  assert pair(one, "ab ", "c").tokens.tolist() == list(b"ab c")
  one.begin = 7
  assert pair(one, "", "c").tokens.tolist() == [7, ord("c")]


def request(*args):
  return SimpleNamespace(args=args)


def test_the_harness_methods_are_those_of_the_scorer_and_the_writer(mamba):
  scorer = Scorer(mamba)
  methods = harness.Methods(scorer)
  pairs = [lambada.split(passage) for passage in PASSAGES]
  assert methods.loglikelihood([request(*texts) for texts in pairs]) == scorer.continuations(pairs)
  assert methods.loglikelihood_rolling([request(text) for text in PASSAGES]) == scorer.texts(PASSAGES)
  greedy = mamba.generate("the ", tokens=6, temperature=0)
  asked = [
    request("a", {"until": ["q"], "max_gen_toks": 3}),
    request("the ", {"until": greedy[2], "max_gen_toks": 6}),
    request("the ", {"until": [], "max_gen_toks": 6, "do_sample": False, "temperature": 1.0}),
  ]
  found = methods.generate_until(asked)
  assert found[1:] == [greedy[: greedy.index(greedy[2])], greedy]


def test_settings_of_requests():
  assert harness.settings({}) == {"stop": [], "tokens": 256, "temperature": 0.0}
  assert harness.settings({"until": "x", "do_sample": True, "top_p": 0.9, "max_tokens": 3}) == {
    "stop": ["x"],
    "tokens": 3,
    "temperature": 1.0,
    "top_p": 0.9,
  }
  with pytest.raises(Mistake, match="not known here: num_beams"):
    harness.settings({"num_beams": 2})


def test_lambada_is_the_same_by_the_scorer(mamba):
  found = lambada.evaluate(mamba, PASSAGES, batch=2)
  scores = Scorer(mamba).continuations([lambada.split(passage) for passage in PASSAGES])
  assert found["perplexity"] == pytest.approx(math.exp(-np.mean([score.logprob for score in scores])), rel=1e-5)
  assert found["accuracy"] == np.mean([score.greedy for score in scores])


def test_passages_that_cannot_be_are_named(tmp_path):
  path = tmp_path / "passages.jsonl"
  for text, message in (
    ("", "has no passages"),
    ('{"text": "a b"}\n{"text": "word"}', "passages.jsonl:2 is no"),
    ('{"text": "a "}', "passages.jsonl:1 is no"),
    ("[]", "passages.jsonl:1 is no"),
  ):
    path.write_text(text)
    with pytest.raises(Mistake, match=message):
      lambada.read(path)
  with pytest.raises(Mistake, match="cannot be read"):
    lambada.read(tmp_path / "nowhere")


def test_passages_may_hold_what_elsewhere_ends_lines(tmp_path):
  passages = ["one\u2028two\x85three\x0b four", "five\rsix seven"]
  path = tmp_path / "passages.jsonl"
  path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in passages), "utf-8-sig")
  assert lambada.read(path) == passages
  assert lambada.read(path, limit=1) == passages[:1]


@pytest.mark.slow
def test_lm_eval_gives_the_same_numbers(mamba, tmp_path):
  pytest.importorskip("lm_eval")
  path = tmp_path / "passages.jsonl"
  path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
  found = harness.run_tasks(Scorer(mamba), [lambada.task(path)], None, None)["lambada_file"]
  expected = lambada.evaluate(mamba, lambada.read(path))
  assert found["acc,none"] == expected["accuracy"]
  assert found["perplexity,none"] == pytest.approx(expected["perplexity"], rel=1e-5)
