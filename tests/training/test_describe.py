"""The lists and descriptions of what has a name."""

import pytest

from data import task as task_lib
from hybrids import mixer as mixer_lib
from hybrids import recipes
from mistake import Mistake
from training import config_file, describe


def test_published_models_are_listed_with_their_parameters():
  head, *lines = describe.names("models").splitlines()
  assert head.split()[:3] == ["model", "published", "parameters"]
  assert [line.split()[0] for line in lines] == [*recipes.names(), *recipes.names(toys=True)]
  line = next(line for line in lines if line.startswith("jamba_v0.1"))
  assert "51,570,323,328" in line
  assert "12,000,000,000 active" in line


@pytest.mark.parametrize("columns", ["", "132", "20"])
def test_lines_of_models_fit_the_terminal(monkeypatch, columns):
  monkeypatch.setenv("COLUMNS", columns)
  lines = describe.names("models").splitlines()
  longest = max(map(len, lines))
  # names and numbers are whole in any case
  assert 60 < longest <= max(int(columns or 100), 100)
  assert any(line.endswith(" …") for line in lines)
  assert next(line for line in lines if line.startswith("gpt2_toy")).count("=")


def test_a_model_is_described_by_its_source_and_its_sections():
  page = describe.page("mamba_130m")
  assert "arXiv:2312.00752" in page
  assert "body.letters.m.name" in page


def test_tasks_are_described_by_what_they_are():
  lines = dict(line.split(maxsplit=1) for line in describe.names("tasks").splitlines())
  assert lines["mqar"].startswith("Multi-query associative recall")
  page = describe.page("copying")
  assert page.index("repeat the tokens at the front") < page.index("Data tokens are uniform") < page.index("settings")


@pytest.mark.parametrize("kind", ["optimizers", "schedules"])
def test_rules_described_by_one_function_have_lines_of_their_own(kind):
  lines = [line.split(maxsplit=1) for line in describe.names(kind).splitlines()]
  assert all(len(line) == 2 for line in lines), lines
  assert len({about for _, about in lines}) == len(lines)


def test_files_without_a_config_are_not_listed():
  names = [line.split()[0] for line in describe.names("configs").splitlines()]
  assert "configs/mqar.py" in names
  assert not {"configs/base.py", "configs/grammar.py", "configs/__init__.py"} & {*names}
  with pytest.raises(Mistake, match="there are configs/adding.py") as error:
    config_file.find("0.py")
  assert "grammar.py" not in str(error.value)


@pytest.mark.parametrize(
  "find, name, meant, listing",
  [
    (recipes.get_recipe, "jama_v0.1", "jamba_v0.1", "--list models"),
    (mixer_lib.find, "mamab", "mamba", "--list mixers"),
    (mixer_lib.find, "S5", "s5", "--list mixers"),
    (task_lib.find, "mqr", "mqar", "--list tasks"),
    (config_file.find, "configs/mqr.py", "configs/mqar.py", "--list configs"),
  ],
)
def test_after_a_near_miss_few_are_named(find, name, meant, listing):
  with pytest.raises(Mistake, match="did you mean") as error:
    find(name)
  assert f"'{meant}'" in str(error.value)
  assert listing in str(error.value)
  assert len(str(error.value)) < 200
  # nothing is near this: all are named, unless that would be a page
  with pytest.raises(Mistake, match=listing if listing == "--list models" else "mqar|s4d") as error:
    find("0")
  assert "did you mean" not in str(error.value)
  assert len(str(error.value)) < 1500


def test_mixers_are_listed_though_a_file_fails(tmp_path, monkeypatch):
  (tmp_path / "odd_mixers").mkdir()
  (tmp_path / "odd_mixers" / "broken.py").write_text("import no_such_library\n")
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(mixer_lib, "FOLDERS", ("hybrids.channel", "odd_mixers"))
  cached = (mixer_lib.available, mixer_lib._files, mixer_lib._load)
  for function in cached:
    function.cache_clear()
  lines = dict(line.split(maxsplit=1) for line in describe.names("mixers").splitlines())
  for function in cached:
    function.cache_clear()
  assert "mlp" in lines
  assert (
    lines["broken"] == "odd_mixers/broken.py cannot be used: ModuleNotFoundError: No module named 'no_such_library'"
  )


@pytest.mark.parametrize(
  "name, said",
  [
    ("mamba_3b", "of this family there are mamba_130m, mamba_370m, .* mamba_2.8b"),
    ("jamba", "of this family there are jamba_v0.1"),
    ("S4D", "did you mean 's4d'"),
    ("mambo", "did you mean 'mamba'"),
  ],
)
def test_a_name_that_is_nearly_one_is_answered_by_its_neighbours(name, said):
  with pytest.raises(Mistake, match=said):
    describe.page(name)
