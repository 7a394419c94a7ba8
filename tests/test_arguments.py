"""Command lines that cannot be right end in one line with code 2, whichever program reads them."""

import pytest

from arguments import Parser, at_least
from tests import sources


@pytest.mark.parametrize(
  "argv, words",
  [
    ([], "the following arguments are required: --out"),
    (["--ouut=x", "--out=y"], "unrecognized arguments: --ouut=x (did you mean '--out'?)"),
    (["--out=y", "--rows=x"], "argument --rows: invalid int value: 'x'"),
    (["--out=y", "--rows=1\n2"], r"argument --rows: invalid int value: '1\n2'"),
    *(([f"--size={size}", "--out=y"], f"argument --size: '{size}' is no whole number") for size in (0, "1.5", 2**40)),
    (["--out=y", "--kind=z"], "argument --kind: invalid choice: 'z' (choose from"),
  ],
)
def test_what_is_wrong_is_said_in_one_line(capsys, argv, words):
  parser = Parser(prog="tool")
  parser.add_argument("--out", required=True)
  parser.add_argument("--rows", type=int)
  parser.add_argument("--size", type=at_least(1))
  parser.add_argument("--kind", choices=("a", "b"))
  with pytest.raises(SystemExit) as ended:
    parser.parse_args(argv)
  (line,) = capsys.readouterr().err.splitlines()
  assert ended.value.code == 2
  assert line.startswith("tool: ")
  assert line.endswith("; --help says what there is")
  assert words in line


def test_programs_for_users_read_their_command_lines_with_it():
  """But those that record or measure for the documentation."""
  own = ("arguments.py", "tests/", "scripts/golden/", "scripts/peers/", "scripts/pictures/", "scripts/device_day.py")
  own += ("scripts/loading_memory.py",)
  for file in sources.python_files():
    if not sources.relative(file).startswith(own):
      assert "argparse.ArgumentParser(" not in file.read_text(), sources.relative(file)
