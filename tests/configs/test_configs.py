"""Every config file loads locked and complete, builds what it names, and says what is wrong with its argument."""

import dataclasses
import inspect
import itertools
import json
import re
import runpy

import jax
import pytest
from flax.core import meta

from configs import equal_states
from data.task import build_task, find
from hybrids import sections
from hybrids.mixer import available
from hybrids.mixer import build as build_mixer
from hybrids.model import build_model
from inference import text
from scripts import plan
from tests import sources
from training import optimizer, schedule, sharding, state

FILES = [path for path in sources.python_files("configs") if path.stem not in ("__init__", "base", "files", "grammar")]
VARIANTS = {
  "induction_heads": ("", "protocol=paper", "mixer=softmax,m.position=rope", "mixer=softmax,position=learned"),
  "text": ("files=x.txt", "task=tiny_shakespeare"),
  "tokens": (f"dir={sources.ROOT}/tests/data/toy_tokens",),
  "mqar": ("", "stages=(),vocab=8192,batch=512,dropout=0.1,weight_decay=0.1"),
  "mqar_states": ("", "size=128x16,mixer=mamba,m.state=4"),
  "mqar_table": ("size=128x16,mixer=mamba2,m.state=64",),
  "recall_table": ("mixer=s4d",),
  "recall_widths": ("model=based,length=42,width=32", "model=hybrid,width=16"),
  "small_sets": ("set=listops,model=ssm,dir=ignored", "set=nmnist,model=transformer,dir=FOLDER"),
  "speech_commands": ("files=x.npz,khz8=y.npz", "model=s4,files=x.npz"),
  "scifar": ("size=small,mixer=s4d",),
  "wikitext103": ("dir=FOLDER", f"setting=words,embed.cutoffs=(20,50,200),dir={sources.ROOT}/tests/data/toy_tokens"),
  "pg19": ("size=small,dir=FOLDER",),
  "hg38": ("size=small,warm=true,dir=FOLDER",),
  "species": ("dir=FOLDER", "embed=strands,dir=FOLDER"),
  "shd": ("files=x.npz", "set=dvs128,files=x.npz"),
  "sounds": ("dataset=youtubemix,dir=FOLDER",),
  "pixels": ("dir=FOLDER",),
  "copying_shells": ("block=none,inner=s6", "block=h3,inner=s4"),
  "hippo_init": ("m.A_init=random,m.learn=output",),
  "induction_table": ("model=xpos", "model=hyena"),
  "equal_states": tuple(f"task={task},mixer=mamba" for task in equal_states.TASKS),
  "bytes_table": ("model=s5", "model=griffin"),
  "mup": ("model=mamba,width=128,base_width=32", "model=transformer,width=64"),
  "hybrid": ("kind=griffin", "task=mqar", "kind=experts,e.balance=0.0"),
  "selective_copying": ("", "length=4112,tokens=16,batch=64,steps=400000,lr=1e-4,stages=(),max_len=8192"),
  "listops": ("", "length=256,shortest=20,longest=200,train_rows=0,mixer=s5"),
  "copying": ("", "mixer=lru,length=420"),
  "associative_recall": ("", "mixer=h3"),
  "word_problem": ("", "group=A5,mixer=rwkv7", "group=A4xZ5,length=32,eval_sizes=((32,32),)"),
  "adding": ("mixer=lru",),
  "needle": ("mixer=gated_delta_net,length=512",),
  "formal_language": ("language=reverse_string,mixer=slstm",),
  "mad": ("mixer=gla", "problem=compression,length=64"),
  "regbench": ("mixer=gated_delta_net",),
  "mqar_forms": ("", "form=compositional,mixer=delta_net", "form=continuous,passes=2"),
  "pathfinder": ("side=128,dir=FOLDER,m.dt_min=1e-4",),
  "arrays": ("files=x.npz,channels=2,labels=3,length=16", "files=x.csv,predict=next,channels=2,labels=1,length=16"),
  "named": ("dataset=imdb,dir=FOLDER", "dataset=nmnist_subset,dir=FOLDER,mixer=event_ssm,window=4"),
  "lra": (
    "",
    "task=path_x,mixer=s4,dir=FOLDER",
    "task=retrieval,mixer=softmax,dir=FOLDER",
    "task=image,mixer=mega,dir=FOLDER",
  ),
  "ruler": ("problem=variable_tracking,mixer=softmax,m.position=rope",),
  "dna": ("files=GENOME.fna.gz,mixer=hyena",),
  "phonebook": ("pattern=ma,m=mamba2,a=softmax",),
  "smnist": ("", "permuted=true,mixer=s4d"),
  "every_state_space": ("mixer=s4", "task=copying,dir=ignored,mixer=mamba"),
  "state_tracking": (
    "score=last,batch=256,steps=20000,lr=1e-3,warmup=2000,weight_decay=0.1,save.every=1000",
    "task=arithmetic,mixer=slstm",
    "task=brackets",
  ),
  "model": (
    "",
    "mamba_toy,batch=4,m.state=4",
    "jamba_toy,task=text_file,files=x.txt",
    "gpt2_toy,task=noise",
    "sashimi_toy",
  ),
  "bytes": ("", "pattern=m-a-,m=mamba,a=softmax,depth=4,stateful=true", "mixer=s5,mlp=4,depth=4,cpu_devices=0"),
}
CASES = [(path, arg) for path in FILES for arg in VARIANTS[path.stem]]


def load(path, arg):
  return runpy.run_path(str(path))["get_config"](arg)


# sections of models whose variables were compared, without their numbers: what differs in sizes alone is done once
BUILT: set[str] = set()


def without_numbers(section):
  if isinstance(section, dict):
    return {key: without_numbers(value) for key, value in section.items()}
  if isinstance(section, (list, tuple)):
    return [without_numbers(value) for value in section]
  return 0 if type(section) in (int, float) else section


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].stem}:{case[1]}")
def config(request):
  return load(*request.param)


def test_a_config_is_locked_and_survives_json(config):
  assert config.is_locked
  with pytest.raises(AttributeError, match="(?i)did you mean"):
    config.optimizer.lrr = 1
  assert json.loads(config.to_json())["steps"] == config.steps


def test_the_data_section_has_every_field_of_its_task(config):
  section = config.data.to_dict()
  task = find(section.pop("name"))
  assert set(section) == {field.name for field in dataclasses.fields(task)}
  build_task(config.data.name, **section)


def test_the_model_section_builds_and_is_the_same_model_when_it_is_filled_up(config):
  task = build_task(**config.data.to_dict())
  section = config.model.to_dict()
  full = sections.complete(section)
  assert sections.complete(full) == full
  model = build_model(task, **full)
  assert model == build_model(task, **sections.complete(json.loads(json.dumps(full))))
  if (key := json.dumps([without_numbers(section), type(task).__name__])) in BUILT:
    return
  BUILT.add(key)
  params = lambda model: meta.unbox(state.variables_shape(model, task))
  assert params(model) == params(build_model(task, **section))


def test_the_other_sections_are_the_arguments_of_what_they_name(config):
  keyword = lambda function: {
    p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY
  }
  assert set(config.optimizer) == keyword(optimizer.build) - {"steps"}
  assert set(config.mesh) == keyword(sharding.make_mesh) - {"devices"} | {"cpu_devices"}
  assert set(config.generate) == keyword(text.write) - {"out", "draft", "num_speculative_tokens"}


def test_the_schedule_fits_the_steps(config):
  rate = schedule.of(config.optimizer, config.steps)
  assert 0 < float(rate(config.optimizer.warmup)) <= config.optimizer.lr * (1 + 1e-6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_is_labelled_with_its_command(path):
  label = runpy.run_path(str(path))["__doc__"]
  for name, arg in re.findall(r"(?:main.py|dev sweep|dev run) --config '?(configs/\w+\.py)(?::([^\s']+))?", label):
    assert name == f"configs/{path.stem}.py"
    assert load(path, arg).is_locked
  assert f"configs/{path.stem}.py" in label


@pytest.mark.parametrize("name", ["mqar", "selective_copying"])
def test_a_sweep_tries_every_mixer_on_the_same_grid(name):
  path = next(path for path in FILES if path.stem == name)
  settings = plan.overrides(str(path))
  rates = {mixer: [s["lr"] for s in group] for mixer, group in itertools.groupby(settings, lambda s: s["mixer"])}
  assert list(rates) == ["mamba", "softmax", "s4d", "s5"]
  assert len({tuple(each) for each in rates.values()}) == 1
  plain = load(path, "")
  for setting in settings:
    config = load(path, plan.argument(setting))
    assert config.optimizer.lr == setting["lr"]
    assert config.model.body.letters.m.name == setting["mixer"]
    assert (config.data, config.steps) == (plain.data, plain.steps)


def test_every_state_space_is_tried_on_every_task_it_can_do():
  path = next(path for path in FILES if path.stem == "every_state_space")
  settings = plan.overrides(str(path))
  mixers = {name for name, dotted in available().items() if dotted.startswith("ssm.")}
  tried = {task: {s["mixer"] for s in settings if s["task"] == task} for task in ("smnist", "copying")}
  assert tried == {"smnist": mixers, "copying": mixers - {"s4nd", "ssm2d"}}
  for setting in settings:
    config = load(path, "dir=somewhere," + plan.argument(setting))
    assert config.model.body.letters.m.name == setting["mixer"]
    assert (config.model.get("width", 64), config.model.body.depth) == (64, 2)


def test_state_tracking_is_tried_by_all_with_the_same_seeds():
  path = next(path for path in FILES if path.stem == "state_tracking")
  configs = [load(path, plan.argument(setting)) for setting in plan.overrides(str(path))]
  seeds = {}
  for config in configs:
    assert config.seed == config.data.seed
    seeds.setdefault(str(config.model.body.letters.m.to_dict()), []).append(config.seed)
  assert set(map(tuple, seeds.values())) == {(0, 1, 2)}
  assert len({str(config.optimizer) for config in configs}) == len({config.steps for config in configs}) == 1


def test_every_state_is_tried_at_every_rate_with_the_same_rows():
  path = next(path for path in FILES if path.stem == "mqar_states")
  rates, same = {}, {}
  for setting in plan.overrides(str(path)):
    config = load(path, plan.argument(setting))
    model = config.model.to_dict()
    rates.setdefault((setting["size"], setting["mixer"], str(model)), []).append(config.optimizer.lr)
    same.setdefault(setting["size"], set()).add((str(config.data), config.steps))
    assert config.data.length <= model["body"]["letters"]["m"].get("max_len", 4096)
  assert len({tuple(each) for each in rates.values()}) == 1
  assert all(len(each) == 1 for each in same.values())
  tried = [(size, mixer) for size, mixer, _ in rates]
  assert {tried.count(pair) for pair in tried} == {3}
  assert len(set(tried)) == 2 * 7


def test_the_states_that_are_called_equal_are_equal_within_a_quarter():
  assert set(equal_states.MIXERS) | set(equal_states.LOOSE) <= set(available()), "a mixer has another name now"
  for name, fixed in equal_states.MIXERS.items():
    mixer = build_mixer(name, width=64, **{key[2:]: value for key, value in fixed.items() if key.startswith("m.")})
    state = jax.eval_shape(lambda mixer=mixer: mixer.init_state(1, 128))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert abs(size / equal_states.BYTES - 1) <= 0.25, f"{name}: {size} bytes"


def test_a_variant_that_does_not_exist_lists_the_others():
  path = next(path for path in FILES if path.stem == "text")
  with pytest.raises(ValueError, match="task='tiny_shakespear' .did you mean 'tiny_shakespeare'.*choose from"):
    load(path, "task=tiny_shakespear")
