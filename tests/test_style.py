"""The limits of the house style that a program can check."""

import ast
import sys

from tests import sources

LINES, KERNEL_LINES, FUNCTION_LINES, MAIN_LINES = 400, 600, 60, 300
LIBRARY = ("kernels", "layers", "ssm", "attention", "hybrids", "data", "training", "inference", "interop")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NOUNS = {"a", "all", "an", "as", "both", "each", "every", "how", "of", "one", "see", "the", "their", "two", "what"}
NOUNS |= {"where", "whether", "which", "zeros"}


def nodes(*folders, tests=True):
  """Every node of the syntax trees of these folders' files, and where it stands."""
  for file in sources.python_files(*folders):
    if tests or not sources.relative(file).startswith("tests/"):
      for node in ast.walk(sources.parse(file)):
        yield node, f"{sources.relative(file)}:{getattr(node, 'lineno', 0)}"


def test_files_are_short():
  for file in sources.python_files():
    name = sources.relative(file)
    limit = {"main.py": MAIN_LINES}.get(name, KERNEL_LINES if name.startswith("kernels/") else LINES)
    lines = len(file.read_text().splitlines())
    assert lines <= limit, f"{name} has {lines} lines, over {limit}: it holds two ideas"


def test_functions_are_short():
  for node, where in nodes(tests=False):
    if isinstance(node, FUNCTIONS):
      lines = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
      assert lines <= FUNCTION_LINES, f"{where} {node.name}: {lines} lines besides its docstring, over {FUNCTION_LINES}"


def test_no_file_is_a_drawer():
  names = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
  found = [sources.relative(file) for file in sources.python_files() if file.name in names]
  assert not found, f"name these for what they do, or put what they hold beside its user: {found}"


def test_asserts_carry_messages():
  for node, where in nodes(tests=False):
    assert not isinstance(node, ast.Assert) or node.msg is not None, f"{where} asserts without a message"


def test_what_the_user_got_wrong_is_a_mistake():
  for node, where in nodes(*LIBRARY, "configs", "scripts"):
    call = getattr(node, "exc", None) if isinstance(node, ast.Raise) else None
    name = getattr(getattr(call, "func", call), "id", None)
    assert name != "ValueError", f"{where} raises ValueError, which main.py reports as a bug; raise mistake.Mistake"


def test_jax_numpy_is_jnp():
  for node, where in nodes():
    if isinstance(node, ast.Import):
      assert {alias.name: alias.asname for alias in node.names}.get("jax.numpy", "jnp") == "jnp", where


def documented_files():
  """Library files; an implementation of an op is described by the op's own docstring."""
  for file in sources.python_files(*LIBRARY):
    if file.read_text().strip():
      yield file, sources.relative(file).startswith("kernels/") and file.name != "__init__.py"


def test_modules_classes_and_public_functions_have_docstrings():
  for file, is_implementation in documented_files():
    name, tree = sources.relative(file), sources.parse(file)
    assert ast.get_docstring(tree), f"{name} has no docstring"
    for node in tree.body:
      if is_implementation or not isinstance(node, (ast.ClassDef, *FUNCTIONS)) or node.name.startswith("_"):
        continue
      # the annotations of a NamedTuple say what it holds
      is_tuple = isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "NamedTuple" for base in node.bases)
      documented = is_tuple or ast.get_docstring(node)
      assert documented, f"{name}:{node.lineno} {node.name} has no docstring under its first line"


def test_docstrings_of_functions_begin_with_a_verb():
  for node, where in nodes(*LIBRARY, "configs", "scripts"):
    text = ast.get_docstring(node) if isinstance(node, FUNCTIONS) else None
    opening = text.split()[0].strip(".,:").lower() if text else ""
    # an equation may begin with one capital letter, A among them, and goes on with its sign
    is_equation = bool(text) and len(opening) == 1 and text.split()[1] in ("=", "->")
    assert is_equation or opening not in NOUNS, (
      f"{where}: a docstring that begins with {opening!r} has no verb at its head; "
      "say what the function does: 'Returns the …', 'Draws …', or its equation"
    )


def test_files_name_no_place_on_one_machine():
  for file in sources.python_files():
    if not sources.relative(file).startswith("tests/"):
      for line, text in enumerate(file.read_text().splitlines(), 1):
        assert not any(place in text for place in ("/work/", "/home/")), f"{sources.relative(file)}:{line}"


def test_no_notebook_hides_a_package():
  # Python looks beside the program first, so notebooks/hybrids.py would be what `import hybrids` finds there
  ours = {path.stem for path in [*sources.ROOT.glob("*.py"), *sources.ROOT.iterdir()]}
  for file in sources.python_files("notebooks"):
    assert file.stem not in ours | sys.stdlib_module_names, f"{sources.relative(file)} hides {file.stem}; rename it"
