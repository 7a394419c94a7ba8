"""The argument after the colon: pairs, brackets, quotes, and a caret under what has no partner."""

import json
import random
import runpy
import subprocess
import sys

import pytest

from configs import base, grammar
from tests import sources


def prompt(text: str) -> str:
  return base.get_config(f"generate.prompt={text},steps=7").generate.prompt


@pytest.mark.parametrize(
  "written,meant",
  [
    ("a, b", None),
    ("'a, b'", "a, b"),
    ('"a, b"', "a, b"),
    ("' a '", " a "),
    ('don"\'"t', "don't"),
    ('"don\'t"', "don't"),
    ("'say \"x\"'", 'say "x"'),
    (r'"say \"x\" \\ \n"', 'say "x" \\ \\n'),
    (r"'a\'", "a\\"),
    ("')'", ")"),
    ("'(['", "(["),
    ("f(x, 'y)')", "f(x, 'y)')"),
    ("x='='", "x=="),
    ("''", ""),
  ],
)
def test_quotes_work_as_in_a_shell(written, meant):
  if meant is None:
    with pytest.raises(ValueError, match="'b' is not key=value"):
      prompt(written)
  else:
    assert prompt(written) == meant
    assert base.get_config(f"generate.prompt={written},steps=7").steps == 7


def test_a_bracket_in_one_value_leaves_a_later_tuple_whole():
  c = base.get_config("generate.prompt=':)',groups=(('embed',{'lr':0.1}),),seed=2")
  assert (c.generate.prompt, c.optimizer.groups, c.seed) == (":)", (("embed", {"lr": 0.1}),), 2)


def test_what_is_quoted_is_text_and_what_is_in_brackets_a_literal():
  c = base.get_config("m.a='8',m.b=8,m.c=('x,y',1),m.d=\"true\",m.e=true,m.f=[1, 2],m.g=None,m.h=none")
  m = {key: value for key, value in c.model.body.letters.m.to_dict().items() if len(key) == 1}
  assert m == {"a": "8", "b": 8, "c": ("x,y", 1), "d": "true", "e": True, "f": [1, 2], "g": None, "h": "none"}


@pytest.mark.parametrize(
  "arg,place,reason",
  [
    ("width=(1,steps=5", 6, "'(' is never closed"),
    ("groups=((1,2),steps=5,seed=1", 7, "'(' is never closed"),
    ("width=8,generate.prompt=:),groups=((1,2),)", 25, "')' closes nothing"),
    ("groups=(1,2],seed=1", 11, "']' closes '(' of another kind"),
    ("generate.prompt=don't,steps=5", 19, "the quote ' is never closed"),
    ('generate.prompt="a,steps=5', 16, 'the quote " is never closed'),
    ("groups=('a)", 8, "the quote ' is never closed"),
    ("seed=1,groups=" + "(" * 40, 14 + 32, "nested more than 32 deep"),
  ],
)
def test_what_has_no_partner_is_an_error_with_a_caret(arg, place, reason):
  with pytest.raises(ValueError) as error:
    base.get_config(arg)
  first, shown, caret = str(error.value).splitlines()
  assert reason in first
  assert shown == f"  {arg}"
  assert caret == "  " + " " * place + "^"


def test_a_long_argument_is_cut_around_the_caret():
  with pytest.raises(ValueError) as error:
    grammar.pairs("x=1," * 100 + "y=(," + "z=1," * 100)
  _, shown, caret = str(error.value).splitlines()
  assert len(shown) < 130
  assert shown[caret.index("^")] == "("


def test_the_command_line_shows_the_caret():
  command = [sys.executable, "main.py", "--mode", "count", "--config", "configs/bytes.py:steps=5,width=(8"]
  done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  first, shown, caret = done.stderr.splitlines()
  assert first.startswith("error: config argument: '(' is never closed")
  assert (shown, caret) == ("  steps=5,width=(8", " " * 16 + "^")


@pytest.mark.parametrize(
  "arg,message",
  [
    ("lr=nan", "lr='nan' must be a number"),
    ("lr=1e999", "lr='1e999' must be a finite number"),
    ("steps=1e999", "steps='1e999' must be a finite number"),
    ("steps=" + "9" * 400, "must be a finite number below 2.63"),
    ("lr=" + "9" * 400, "must be a finite number below 2.63"),
    ("steps='5'", "must be a number"),
    ("width=" + "-" * 9999 + "1", "must be a number"),
    ("groups=(embed,1)", "is no Python literal such as"),
    ("m.dims=(1,b=2)", "is no Python literal such as"),
    ("m.dims={[]:1}", "is no Python literal such as"),
    ("'=3", "the quote ' is never closed"),
  ],
)
def test_a_value_that_cannot_be_is_refused(arg, message):
  with pytest.raises(ValueError, match=message):
    base.get_config(arg)


def test_steps_may_be_written_as_powers_of_ten():
  steps = base.get_config("steps=1e3").steps
  assert (steps, type(steps)) == (1000, int)


def test_any_text_can_be_quoted():
  letters = random.Random(0)
  for _ in range(2000):
    text = "".join(letters.choices("ab ,=()[]{}'\"\\\n", k=letters.randrange(8)))
    ((key, written),) = grammar.pairs(f"key={grammar.quoted(text)}")
    assert (key, grammar.unquoted(written)) == ("key", text), text


@pytest.mark.parametrize("text", ["s5", "a.b-c", "x y", "1e-3", "back\\slash", ""])
def test_plain_text_needs_no_quotes(text):
  assert grammar.quoted(text) == text


def test_a_variant_leaves_the_other_pairs_as_they_were_written():
  value, rest = grammar.take("task='brackets',x='a, b',y=(1,'c,')", "task", ["parity", "brackets"])
  assert (value, rest) == ("brackets", "x='a, b',y=(1,'c,')")
  path = next(path for path in sources.python_files("configs") if path.stem == "text")
  config = runpy.run_path(str(path))["get_config"]("task=text_file,files='a, b.txt'")
  assert json.loads(config.to_json())["data"]["files"] == "a, b.txt"
