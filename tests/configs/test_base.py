"""Arguments of a config are set where they belong, and are refused in words."""

import functools

import pytest

from configs import base
from data.task import build_task
from hybrids import mixer as mixer_lib
from hybrids import sections
from hybrids.model import build_model
from layers.fields import fields


def at(config, path):
  return functools.reduce(lambda section, key: section[key], path.split("."), config.to_dict())


ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in base.__doc__.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("written, sets", [row[:2] for row in ROWS[2:]])
def test_every_row_of_the_table_of_keys_does_what_it_says(written, sets):
  path, value = sets.split("=")
  config = base.get_config(written)
  assert str(at(config, path)) == value
  assert config.to_dict() != base.get_config().to_dict()
  build_model(build_task(**config.data.to_dict()), **sections.complete(config.model.to_dict()))


@pytest.mark.parametrize("key", base.MODEL)
def test_every_short_name_of_the_model_sets_its_field(key):
  path, kind = base.MODEL[key]
  value = {int: 3, float: 0.25, bool: False, str: "mm" if key == "pattern" else "x"}[kind]
  assert at(base.get_config(f"{key}={value}"), f"model.{path}") == value


def test_mixers_are_named_and_given_arguments():
  c = base.get_config("pattern=m-a-,a=softmax,a.heads=4,m=mamba,m.state=8,depth=6,width=32")
  assert c.model.body.pattern == "m-a-"
  assert c.model.body.letters.to_dict() == {
    "m": {"name": "mamba", "state": 8},
    "a": {"name": "softmax", "heads": 4},
    "-": {"name": "mlp"},
  }
  assert (c.model.body.depth, c.model.width) == (6, 32)


def test_arguments_stand_in_any_order():
  c = base.get_config("m.state=16,mixer=s5,mlp=2")
  assert c.model.body.pattern == "m-"
  assert c.model.body.letters.to_dict() == {"m": {"name": "s5", "state": 16}, "-": {"name": "mlp", "expand": 2}}


def test_a_later_argument_may_be_of_another_type():
  letter = lambda pairs: base.get_config(f"m=softmax,{pairs}").model.body.letters.m.to_dict()
  assert letter("m.heads=4,m.heads=None") == {"name": "softmax", "heads": None}
  assert letter("m.scaling.rule=ntk,m.scaling=None") == {"name": "softmax", "scaling": None}


def test_arguments_of_a_wrapper_and_of_the_mixer_within_it_stand_in_any_order():
  wanted = {"name": "bidirectional", "merge": "concat", "mixer": {"name": "s4d", "state": 4}}
  for pairs in ("m.mixer.name=s4d,m.merge=concat,m.mixer.state=4", "m.merge=concat,m.mixer={'name':'s4d','state':4}"):
    assert base.get_config(f"m=bidirectional,{pairs}").model.body.letters.m.to_dict() == wanted
  letter = base.get_config("m=bidirectional,m.branch.scale=2,m.mixer.name=s4d,m.merge=concat,m.mixer.state=4")
  assert letter.model.body.letters.m.to_dict() == {"mixer": wanted, "scale": 2}
  assert base.get_config("m=bidirectional,m.mixer.name=s4d,m.state=8").model.body.letters.m.mixer.state == 8
  of = {name: fields(mixer_lib.find(name)) for name in mixer_lib.available()}
  around = {name: set(known) - {"width", "mixer", "layer", "depth"} for name, known in of.items() if "mixer" in known}
  assert {name: set(known) for name, known in base.WRAPPERS.items()} == around


@pytest.mark.parametrize(
  "pairs, depth",
  [("", 8), (",depth=3", 3), (",body.depth=12", 12), (",mlp=4", 14)],
  ids=["whole", "cut", "tiled", "mlp"],
)
def test_a_pattern_longer_than_the_depth_is_whole_unless_the_depth_is_given(pairs, depth):
  letters = "pattern=MM-MM*-M" if not pairs.startswith(",mlp") else "pattern=MMMM*MM"
  body = base.get_config(f"{letters},M=mamba2,*=softmax{pairs}").model.body
  assert body.depth == depth
  assert base.get_config("pattern=m").model.body.depth == base.defaults().model.body.depth


def test_an_mlp_follows_every_letter():
  c = base.get_config("pattern=ma,a=softmax,mlp=4,-=gated_mlp")
  assert c.model.body.pattern == "m-a-"
  assert c.model.body.letters["-"].name == "mlp"


def test_keys_are_found_in_their_sections_and_keep_their_types():
  c = base.get_config(
    "lr=2,steps=1e4,batch=16,tie=false,groups=(('embed',{'lr':0.1}),),save.every=7,dtype=bfloat16,data.seed=4"
  )
  assert (c.optimizer.lr, type(c.optimizer.lr)) == (2.0, float)
  assert (c.steps, type(c.steps)) == (10000, int)
  assert (c.data.batch, c.model.head.tie, c.save.every, c.model.dtype) == (16, False, 7, "bfloat16")
  assert c.optimizer.groups == (("embed", {"lr": 0.1}),)
  assert (c.seed, c.data.seed) == (0, 4)


def test_model_fields_find_their_sections():
  c = base.get_config(
    "mlp=2,position=learned,norm=layer,norm_position=post,dropout=0.1,softcap=30,embed_std=0.1,unroll=2,max_len=99,"
    "head.z_loss=1e-4,body.shared=m,m.branch.scale=0.5,m.state=4,pool=cls,param_dtype=bfloat16"
  )
  assert c.model.to_dict() == {
    "embed": {"name": "tokens", "position": "learned", "std": 0.1, "class_token": "end"},
    "body": {
      "name": "stack",
      "pattern": "m-",
      "depth": 2,
      "letters": {"m": {"mixer": {"name": "mamba", "state": 4}, "scale": 0.5}, "-": {"name": "mlp", "expand": 2}},
      "branch": {"norm": {"name": "layer"}, "norm_position": "post", "dropout": 0.1},
      "unroll": 2,
      "shared": "m",
    },
    "head": {"name": "lm", "softcap": 30.0, "z_loss": 1e-4, "pool": "cls"},
    "max_len": 99,
    "param_dtype": "bfloat16",
  }


OLD = {
  **{"width": 8, "depth": 3, "pattern": "m-", "mixers": {"m": {"name": "mamba", "state": 4}, "-": {"name": "mlp"}}},
  **{"norm": "layer", "norm_position": "pre", "position": "learned", "max_len": 64, "embed_std": 0.1, "tie": False},
  **{"dropout": 0.1, "remat": "full", "unroll": 2, "dtype": "float32", "learn_state": False},
}


def test_a_flat_model_section_of_an_older_run_is_read():
  new = sections.upgrade(OLD)
  assert new == {
    "width": 8,
    "max_len": 64,
    "dtype": "float32",
    "embed": {"position": "learned", "std": 0.1},
    "body": {
      **{"name": "stack", "depth": 3, "pattern": "m-", "letters": OLD["mixers"], "remat": "full", "unroll": 2},
      "branch": {"norm": {"name": "layer"}, "norm_position": "pre", "dropout": 0.1},
    },
    "head": {"name": "lm", "tie": False},
  }
  assert sections.upgrade(new) == new
  label = {key: value for key, value in OLD.items() if key != "tie"} | {"pool": "cls"}
  assert sections.upgrade(label)["head"] == {"name": "classifier", "pool": "cls"}
  assert sections.upgrade(label)["embed"]["class_token"] == "end"
  with pytest.raises(ValueError, match="learn_state=true: first states that are learned are no longer supported"):
    sections.upgrade(OLD | {"learn_state": True})


@pytest.mark.parametrize(
  "arg, warmup", [("steps=40", 4), ("steps=5", 0), ("steps=51", 50), ("steps=40,warmup=60", 60), ("", 50)]
)
def test_a_short_trial_has_a_short_warm_up_unless_it_is_given(arg, warmup):
  assert base.get_config(arg).optimizer.warmup == warmup


def test_one_seed_argument_sets_both():
  c = base.get_config("seed=3")
  assert (c.seed, c.data.seed) == (3, 3)


def test_text_values_keep_their_spaces():
  assert base.get_config("steps=5, generate.prompt=def f(x): ").generate.prompt == "def f(x): "


@pytest.mark.parametrize(
  "arg,message",
  [
    ("mixr=s5", "no key 'mixr' .did you mean 'mixer'.*a letter or a full path"),
    ("widht=3", "no key 'widht' .did you mean 'width'"),
    ("optimizer.lrr=1", "no key 'optimizer.lrr' .did you mean 'optimizer.lr'.\\)"),
    ("nothing.at.all=1", "no key 'nothing.at.all'.*its keys are"),
    ("width=wide", "width='wide' must be a number"),
    ("width=1.5", "width='1.5' must be a whole number"),
    ("tie=maybe", "tie='maybe' must be true or false"),
    ("groups=1", "groups='1' must be in brackets"),
    ("a.heads=4", "letter 'a', but letters defines .'m'."),
    ("pattern=rz,r=mamba", "pattern 'rz' uses .'z'., but letters defines .'m', 'r'.: add z=NAME"),
    ("q=mamba", "define letters .'q'., which pattern 'm' does not use"),
    ("every=3", "'every' needs its full path: .'eval.every', 'save.every'."),
    ("eval=3", "'eval' is a section; set one of .*'eval.every'"),
    ("width", "'width' is not key=value"),
    ("=3", "'=3' is not key=value"),
    ("m..state=3", "'m..state=3' has no name before or after a dot"),
    (".=3", "'.=3' has no name before or after a dot"),
    ("mesh.data.x=3", "no key 'mesh.data.x' .did you mean 'mesh.data'"),
    ("body.pattern.x=3", "no key 'body.pattern.x': pattern='m' is no section, but a value"),
    ("embed=tokens", "'embed' is a section; set one of .'embed.name'"),
    ("body.letters.m=s5", "'body.letters.m' is a section; set one of .'body.letters.m.name'"),
    ("m.branch={'scale':2}", "'m.branch' is a section; set a field of it, such as m.branch.scale=0.5"),
  ],
)
def test_a_bad_argument_is_named_with_the_choices(arg, message):
  with pytest.raises(ValueError, match=message) as error:
    base.get_config(arg)
  assert "\n" not in str(error.value)
