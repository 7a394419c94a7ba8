"""Building by name: what exists is found, what does not is answered with what does."""

import re
import sys

import pytest

from hybrids import mixer as mixer_lib
from hybrids.channel.mlp import MLP
from layers import Dense
from layers.mixer import PerToken
from tests.hybrids import toys
from tests.refused import refused

pytestmark = pytest.mark.smoke
GOOD = "import flax.linen as nn\n\n\nclass Fine(nn.Module):\n  width: int\n  STATE = 'fixed'\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A package of mixers: one good, one that cannot be imported, one that is not Python, and a helper."""
  package = tmp_path / "strange_mixers"
  package.mkdir()
  files = {
    "fine": GOOD,
    "broken": f"import no_such_library\n{GOOD}",
    "garbled": f"{GOOD}\n  def (",
    "helper": "x = 1\n",
  }
  for name, text in files.items():
    (package / f"{name}.py").write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(mixer_lib, "FOLDERS", (*mixer_lib.FOLDERS, "strange_mixers"))
  forget()
  yield package
  forget()


def forget():
  """Makes `find` and `available` look at the files again."""
  for cached in (mixer_lib.available, mixer_lib._files, mixer_lib._load):
    cached.cache_clear()


def test_a_file_name_a_module_and_a_class_name_the_same():
  for name in ("mlp", "hybrids.channel.mlp", "hybrids.channel.mlp.MLP"):
    assert mixer_lib.build(name, width=8, expand=2) == MLP(width=8, expand=2)


def test_a_class_beside_others_is_named_by_its_path():
  assert mixer_lib.find("tests.hybrids.toys.Decay") is toys.Decay
  refused("has no mixer 'Decoy' .did you mean 'Decay'", mixer_lib.find, "tests.hybrids.toys.Decoy")


def test_a_class_names_itself():
  """As one defined in a notebook must; other classes are refused."""

  class Doubled(PerToken):
    width: int

    def mix_channels(self, x):
      return 2 * x

  assert mixer_lib.build(Doubled, width=3) == Doubled(width=3)
  refused("Dense is no mixer: it must be a subclass of layers.mixer.Mixer", mixer_lib.build, Dense, features=3)


def test_a_wrong_name_is_answered_with_what_exists():
  refused("no mixer is called 'gated_mpl' .did you mean 'gated_mlp'.*--list mixers", mixer_lib.build, "gated_mpl")
  refused("no mixer is called '0'; choose from .*mlp.*or give a dotted path", mixer_lib.build, "0")
  for name in ("os.system", "layers.dense.Dense", "ssm.nowhere.Mamba", "hybrids.channel.mlp.MLP.setup", ""):
    refused(f"no mixer is called '{name}'", mixer_lib.build, name)


def test_a_wrong_argument_is_answered_with_the_fields():
  message = r"mixer 'mlp' has no field 'expnad' .did you mean 'expand'\?\); its fields are \['width', 'expand'"
  refused(message, mixer_lib.build, "mlp", width=8, expnad=2)
  refused(r"mixer 'bidirectional' needs \['mixer'\]", mixer_lib.build, "bidirectional", width=8)


@pytest.mark.parametrize(
  "name, field, value, kind",
  [
    ("mamba", "state", "abc", "int"),
    ("mamba", "state", 2.5, "int"),
    ("softmax", "heads", True, r"int \| None"),
    ("softmax", "heads", "none", r"int \| None; write None"),
  ],
)
def test_an_argument_of_the_wrong_type_is_named(name, field, value, kind):
  with pytest.raises(ValueError, match=rf"mixer '{name}': {field}={value!r} must be of type {kind}"):
    mixer_lib.build(name, width=8, **{field: value})


@pytest.mark.parametrize(
  "name, fields, kind",
  [
    ("bidirectional", dict(mixer="mamba"), "section, written {'KEY': VALUE}"),
    ("parallel", dict(branches=("mlp",)), "sequence of section"),
    ("parallel", dict(branches={"m": {"name": "mlp"}}), "sequence of section"),
    ("softmax", dict(scaling="yarn"), "section, written {'KEY': VALUE} | None"),
    ("image_scan", dict(orders="row", mixer={"name": "mlp"}), "sequence of str"),
    ("unet", dict(pools=(2, "a"), stack={}), "sequence of int"),
    ("stack", dict(letters={"m": "mlp"}, depth=1, pattern="m"), "section of sections, written"),
  ],
)
def test_a_section_or_a_list_that_is_none_is_named(name, fields, kind):
  (field, value), *_ = fields.items()
  refused(
    re.escape(f"mixer '{name}': {field}={value!r} must be of type {kind}"), mixer_lib.build, name, width=8, **fields
  )
  assert mixer_lib.build("image_scan", width=8, mixer={"name": "mlp"}, orders=["row"])


@pytest.mark.parametrize(
  "name, field, value",
  [
    ("mamba2", "dt_max", float("nan")),
    ("softmax", "window", 10**21),
    ("mamba2", "dt_min", float("inf")),
    ("mamba2", "dt_min", 1e39),
    ("softmax", "softcap", 2**31),
  ],
)
def test_a_number_that_nothing_can_be_made_of_is_named(name, field, value):
  message = re.escape(f"mixer '{name}': {field}={value!r} must be a finite number")
  refused(message, mixer_lib.build, name, width=8, **{field: value})
  assert mixer_lib.build("mamba2", width=8, dt_most=float("inf"))


def test_a_broken_file_breaks_only_its_users(folder):
  sys.modules.pop("strange_mixers.fine", None)
  mixer_lib.find("mlp")
  assert "strange_mixers.fine" not in sys.modules, "finding one imports no other"
  assert mixer_lib.build("fine", width=3).width == 3
  assert {"fine", "broken", "garbled"} < set(mixer_lib.available())
  assert "helper" not in mixer_lib.available()
  with pytest.raises(ModuleNotFoundError, match="no_such_library") as caught:
    mixer_lib.build("broken", width=3)
  assert caught.value.__notes__ == ["while importing the file of mixer 'broken'"]
  with pytest.raises(SyntaxError):
    mixer_lib.build("garbled", width=3)


def test_two_files_of_one_name_are_refused(folder):
  (folder / "mlp.py").write_text(GOOD)
  forget()
  refused("two mixer files are called 'mlp'", mixer_lib.available)


def test_a_section_is_told_width_and_place():
  decay = mixer_lib.build_spec({"name": "tests.hybrids.toys.Decay"}, width=4, layer=2, depth=5)
  assert (decay.width, decay.layer, decay.depth) == (4, 2, 5)
  inner = {"name": "stack", "depth": 1, "pattern": "m", "letters": {"m": {"name": "mlp"}}}
  assert mixer_lib.build_spec(inner, width=4, layer=2, depth=5).depth == 1
  with pytest.raises(ValueError, match="mixer 'mlp' sets width=3 in a stack of width=4"):
    mixer_lib.build_spec({"name": "mlp", "width": 3}, width=4, layer=0, depth=1)
  refused("has no name; choose from", mixer_lib.build_spec, {"expand": 3}, width=4, layer=0, depth=1)
  refused("a mixer is called 3; its name", mixer_lib.build_spec, {"name": 3}, width=4, layer=0, depth=1)


@pytest.mark.parametrize("name", ["hgrn2", "lightning", "rwkv4", "rwkv6", "rwkv7", "rwkv_channel"])
def test_a_place_that_is_not_in_the_model_is_refused(name):
  """By every mixer whose initial values know it; a layer without a depth is not the only layer of a model."""
  place = lambda layer, depth: mixer_lib.build_spec({"name": name}, width=8, layer=layer, depth=depth)
  assert place(2, 3).layer == 2
  for layer, depth in ((3, 2), (2, 2), (-1, 2)):
    refused(f"layer={layer}; it is counted from 0 and must be below depth={depth}", place, layer, depth)
  refused("layer=3; it is counted from 0 and must be below depth=1", mixer_lib.build, name, width=8, layer=3)
  refused("depth=0; it must be at least 1", mixer_lib.build, name, width=8, depth=0)
