"""Imports go one way, and each folder imports only what its place in the design allows."""

import ast
import os
import subprocess
import sys

import pytest

from tests import sources

# folder -> the project's folders it may import besides itself
ARROWS = {
  "kernels": set(),
  "layers": {"kernels"},
  "ssm": {"kernels", "layers"},
  "attention": {"kernels", "layers"},
  "hybrids": {"kernels", "layers", "ssm", "attention"},
  "data": set(),
  "configs": set(),
  "training": {"kernels", "layers", "ssm", "attention", "hybrids"},
  "inference": {"kernels", "layers", "ssm", "attention", "hybrids", "training"},
  "interop": {"kernels", "layers", "ssm", "attention", "hybrids", "training"},
}
# they bring data, model and training together, and nothing else in their folder imports them
JOINING = {
  "training/run.py": {"data", "inference"},
  "training/describe.py": {"data", "inference", "configs"},
  "inference/evaluators.py": {"data"},
  "interop/workdir.py": {"inference"},
  "interop/harness.py": {"inference"},
  "interop/lambada.py": {"inference"},
  "interop/scores.py": {"inference"},
  # published models by name, which are numbers alone
  "configs/model.py": {"hybrids"},
}
# folder -> libraries it has no business with
FOREIGN = {
  "kernels": {"flax", "optax", "orbax", "ml_collections", "grain"},
  "layers": {"optax", "orbax", "ml_collections", "grain"},
  "ssm": {"optax", "orbax", "ml_collections", "grain"},
  "attention": {"optax", "orbax", "ml_collections", "grain"},
  "hybrids": {"optax", "orbax", "ml_collections", "grain"},
  "data": {"jax", "flax", "optax", "orbax"},
  "configs": {"jax", "flax", "optax", "orbax", "grain", "numpy"},
}
OURS = {*sources.FOLDERS, "main"}
# what is imported by the function that needs it, so that no other run waits for it
LATE = {
  "grain", "google.protobuf", "h5py", "jax.experimental.pallas", "jinja2", "matplotlib", "orbax.checkpoint", "pandas",
  "plotly", "pyarrow", "requests", "scipy", "submitit", "tensorboardX", "tensorflow", "tensorflow_datasets",
  "tensorstore", "tokenizers", "torch", "transformers", "wandb",
}  # fmt: skip
LOOPS = {"scan", "fori_loop", "while_loop", "associative_scan"}
# cells whose nonlinear recurrence has no parallel form, and the deep memory that takes gradients inside its loop
LOOPS_ALLOWED = ("ssm/rnn/", "attention/recurrent/titans.py")


@pytest.mark.parametrize("folder", ARROWS)
def test_imports_follow_the_arrows(folder):
  for file in sources.python_files(folder):
    roots = {name.split(".")[0] for name in sources.imports(file)}
    wrong = (roots & OURS) - ARROWS[folder] - {folder} - JOINING.get(sources.relative(file), set())
    assert not wrong, f"{sources.relative(file)} imports {sorted(wrong)}; {folder}/ may import {sorted(ARROWS[folder])}"
    foreign = roots & FOREIGN.get(folder, set())
    assert not foreign, f"{sources.relative(file)} imports {sorted(foreign)}"


def test_what_every_folder_imports_imports_none_of_them():
  for name in ("arguments.py", "mistake.py"):
    assert not {name.split(".")[0] for name in sources.imports(sources.ROOT / name)} & OURS
  for name in ("checkout.py", "ending.py", "terminal.py"):
    roots = {name.split(".")[0] for name in sources.imports(sources.ROOT / name)}
    assert roots <= {*sys.stdlib_module_names, "terminal"}


def test_nothing_imports_scripts_tests_or_notebooks():
  for file in sources.python_files():
    if sources.relative(file).split("/")[0] not in ("scripts", "tests", "notebooks"):
      wrong = {name.split(".")[0] for name in sources.imports(file)} & {"scripts", "tests", "notebooks"}
      assert not wrong, f"{sources.relative(file)} imports {sorted(wrong)}"


def test_files_that_join_folders_are_imported_from_outside_of_theirs():
  joining = {file.removesuffix(".py").replace("/", ".") for file in JOINING}
  for folder in ("training", "inference"):
    own = {name for name in joining if name.startswith(f"{folder}.")}
    for file in sources.python_files(folder):
      wrong = own & set(sources.imports(file))
      assert not wrong, f"{sources.relative(file)} imports {sorted(wrong)}"


def test_mixer_files_contain_no_loops():
  for file in sources.mixer_files().values():
    if sources.relative(file).startswith(LOOPS_ALLOWED):
      continue
    for node in ast.walk(sources.parse(file)):
      name = getattr(node, "attr", None) or getattr(node, "id", None)
      name = name or (getattr(node, "name", None) if isinstance(node, ast.alias) else None)
      assert name not in LOOPS, f"{sources.relative(file)}:{node.lineno} uses {name}; loops live in kernels/"


def test_oracles_import_numpy_only():
  allowed = {"numpy", *sys.stdlib_module_names}
  for file in sources.python_files("tests/oracles"):
    names = {name for name in sources.imports(file) if not name.startswith("tests.oracles")} - {"tests"}
    wrong = {name.split(".")[0] for name in names} - allowed
    assert not wrong, f"{sources.relative(file)} imports {sorted(wrong)}; an oracle is independent of what it judges"


def python(folder, code):
  environment = os.environ | {"PYTHONPATH": str(sources.ROOT)}
  done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
  return done.stderr


def test_a_start_does_not_import_what_only_some_runs_need():
  """Pallas takes longer to import than all that is ours; each of the others a tenth of a second or more."""
  ops = ", ".join(f"kernels.{path.parent.name}" for path in sorted((sources.ROOT / "kernels").glob("*/__init__.py")))
  code = f"import main, sys, {ops}\nassert not sys.modules.keys() & {LATE}, sys.modules.keys() & {LATE}"
  assert python(sources.ROOT, code) == ""


def test_a_package_of_the_users_with_one_of_our_names_is_named(tmp_path):
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "points.csv").touch()
  # a folder without Python in it hides nothing
  assert python(tmp_path, "import hybrids; import data.task") == ""
  (tmp_path / "data" / "__init__.py").touch()
  (tmp_path / "scripts.py").touch()
  error = python(tmp_path, "import hybrids; import data.task")
  for name, ours in ((tmp_path / "data" / "__init__.py", "data"), (tmp_path / "scripts.py", "scripts")):
    assert f"RuntimeWarning: import {ours} finds {name} and not {sources.ROOT / ours}" in error
  assert error.count("RuntimeWarning") == 2
  assert "No module named 'data.task'" in error
