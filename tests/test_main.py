"""The command line, in this process: what a run leaves behind, how it goes on, and one line for each mistake."""

import io
import json
import os
import re
import shutil
import signal

import jax
import pytest

import main as program
from training import metrics, run

TEXT = "the state space of a scan is the space of states that a scan has seen. " * 60
SIZES = (
  "mixer=softmax,width=8,depth=1,length=16,batch=2,steps=6,log_every=2,warmup=2,eval.every=3,save.every=3,"
  "generate.tokens=0"
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
  path = tmp_path_factory.mktemp("text") / "text.txt"
  path.write_text(TEXT)
  return path


def command(text, workdir, *more, sizes=""):
  return ["main.py", f"--config=configs/text.py:files={text},{SIZES}{sizes}", f"--workdir={workdir}", *more]


@pytest.fixture(scope="module")
def trained(text, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run") / "run"
  assert program.main(command(text, workdir)) == 0
  return workdir


def rows(workdir):
  return metrics.read_rows(workdir / "metrics.jsonl")


def test_a_run_leaves_its_files(trained):
  names = {path.name for path in trained.iterdir()}
  expected = {"config.json", "data.json", "metrics.jsonl", "loss.png", "summary.json", "checkpoints", "tensorboard"}
  assert expected <= names
  assert [path.name for path in (trained / "tensorboard").iterdir()][0].startswith("events.out")
  train = [row for row in rows(trained) if "train/loss" in row]
  evaluation = [row for row in rows(trained) if "eval/validation/loss" in row]
  assert [row["step"] for row in train] == [2, 4, 6]
  assert [row["step"] for row in evaluation] == [0, 3, 6]
  speeds = {"train/tokens_per_s", "train/flops_per_s", "train/mfu", "train/tokens", "train/peak_bytes"}
  assert speeds | {"train/lr", "train/grad_norm"} <= set(train[0])
  summary = json.loads((trained / "summary.json").read_text())
  assert summary["status"] == "done"
  assert summary["steps"] == summary["step"] == 6
  assert summary["parameters"] > 0
  assert summary["wall_seconds"] > 0
  assert summary["metrics"]["eval/validation/loss"] == evaluation[-1]["eval/validation/loss"]
  best = summary["best"]["eval/validation/loss"]
  assert best["value"] == min(row["eval/validation/loss"] for row in evaluation)
  assert {"device", "devices"} <= set(summary)
  assert summary["versions"]["jax"] == jax.__version__
  assert sorted(p.name for p in (trained / "checkpoints").iterdir() if p.name.isdigit()) == ["3", "6"]


def test_evaluation_of_a_checkpoint_gives_its_row(trained, capsys):
  for step in (3, 6):
    where = [f"--step={step}"] if step == 3 else []
    assert program.main(["main.py", f"--workdir={trained}", "--mode=eval", *where]) == 0
    found = json.loads((trained / "eval.json").read_text())
    assert found.pop("data") == json.loads((trained / "data.json").read_text()), "an evaluation names its data"
    row = next(row for row in rows(trained) if row["step"] == step and "eval/validation/loss" in row)
    assert found == pytest.approx(row)
  assert "eval/validation/bits_per_byte" in capsys.readouterr().out


def test_an_evaluation_of_other_text_covers_all_of_it_and_says_so(trained, text, tmp_path, capsys):
  workdir = shutil.copytree(trained, tmp_path / "run")

  def evaluate(*more):
    assert program.main(["main.py", f"--workdir={workdir}", "--mode=eval", *more]) == 0, capsys.readouterr().err
    return json.loads((workdir / "eval.json").read_text()), capsys.readouterr().out

  own, _ = evaluate()
  (tmp_path / "other.txt").write_text("other text. " * 9)
  other = f"={tmp_path / 'other.txt'}"
  found, out = evaluate("--config.data.files" + other)
  assert found["data"]["validation"]["bytes"] == 9 * 12
  assert f"files {tmp_path / 'other.txt'}, validation_share 1.0" in out
  found, _ = evaluate("--config.data.files" + other, "--config.data.validation=0.5")
  assert found["data"]["validation"]["bytes"] == 9 * 6, "a share that is asked for"
  found, _ = evaluate("--config.data.test_files" + other)
  assert found["data"]["test"]["bytes"] == 9 * 12
  assert found["eval/validation/loss"] == own["eval/validation/loss"]
  # the same text under another name is what the run was trained on: its held-out share alone is evaluated
  shutil.copy(text, tmp_path / "moved.txt")
  found, _ = evaluate(f"--config.data.files={tmp_path / 'moved.txt'}")
  assert found["eval/validation/loss"] == own["eval/validation/loss"]


def test_a_config_is_found_by_its_name_from_anywhere(tmp_path, monkeypatch, mistaken):
  monkeypatch.chdir(tmp_path)
  for name in ("mqar", "configs/mqar.py"):
    assert program.main(["main.py", f"--config={name}:width=16,depth=1", "--mode=count"]) == 0
  # the caller's own comes first
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs" / "mqar.py").write_text("def get_config(arg=''): raise ValueError('my own')")
  mistaken(program.main, ["main.py", "--config=configs/mqar.py", "--mode=count"], "my own")
  mistaken(program.main, ["main.py", "--config=mqra", "--mode=count"], "did you mean 'mqar'")


def test_several_configs_are_counted_one_after_the_other_and_nothing_else_takes_them(capsys, mistaken):
  names = ["configs/model.py:mamba_toy", "configs/model.py:gpt2_toy"]
  given = [f"--config={names[0]}", "--config", names[1]]
  assert program.main(["main.py", "--mode=count", *given, "--json"]) == 0
  first, second = map(json.loads, capsys.readouterr().out.splitlines())
  assert [first["config"], second["config"]] == names
  assert (first["parameters"], second["parameters"]) == (3320, 3064)
  mistaken(program.main, ["main.py", "--workdir=x", *given], "given 2 times; --mode count takes several, --mode train")


def test_the_same_command_goes_on_and_may_extend(text, trained, tmp_path, capsys):
  workdir = shutil.copytree(trained, tmp_path / "run")
  before = rows(workdir)
  # a row that a killed run wrote but never saved, and one cut short
  with (workdir / "metrics.jsonl").open("a") as file:
    file.write('{"step": 7, "train/loss": 9.0}\n{"step": 8, "tr')
  assert program.main(command(text, workdir)) == 0
  assert "going on at step 6 of 6" in capsys.readouterr().out
  assert rows(workdir) == before
  assert program.main(["main.py", f"--workdir={workdir}", "--config.steps=8", "--config.eval.every=4"]) == 0
  said = capsys.readouterr().out
  assert "steps was 6 and is 8: the cosine schedule is drawn anew" in said
  # of the update alone: its operations, for one, are counted by another implementation
  assert re.search(r"^implementations: attention: (cpp|xla)$", said, re.MULTILINE)
  assert [row["step"] for row in rows(workdir)[len(before) :]] == [8, 8]
  assert json.loads((workdir / "config.json").read_text())["steps"] == 8


def test_a_language_model_of_text_writes_when_it_is_trained(text, tmp_path, capsys):
  room = ",steps=1,warmup=0,position=learned,max_len=16,generate.prompt=the,generate.tokens="
  assert program.main(command(text, tmp_path / "run", sizes=room + "4")) == 0
  written = capsys.readouterr().out
  assert "starting a run of 1 step: depth" in written
  assert "step 1 writes:\nthe" in written
  assert program.main(["main.py", f"--workdir={tmp_path / 'run'}", "--mode=generate", "--tokens=4"]) == 0
  assert capsys.readouterr().out in written, "not what --mode generate writes"
  # and one that cannot is trained all the same
  assert program.main(command(text, tmp_path / "small", sizes=room + "40")) == 0
  assert "nothing: " in capsys.readouterr().out


def test_generate_goes_on_from_the_prompt(trained, capsys):
  assert program.main(["main.py", f"--workdir={trained}", "--mode=generate", "--prompt=the", "--tokens=4"]) == 0
  assert capsys.readouterr().out.startswith("the")


def test_generate_reads_prompts_and_writes_lines_of_json(trained, tmp_path, capsys):
  (tmp_path / "prompts.txt").write_text("the\na scan\n")
  out, prompts = tmp_path / "out.jsonl", f"--prompts={tmp_path / 'prompts.txt'}"
  more = ["--mode=generate", prompts, "--tokens=4", "--num_return_sequences=2"]
  assert program.main(["main.py", f"--workdir={trained}", *more, f"--out={out}"]) == 0
  rows = [json.loads(line) for line in out.read_text().splitlines()]
  assert [row["prompt"] for row in rows] == ["the", "the", "a scan", "a scan"]
  assert all(set(row) == {"prompt", "completion", "tokens", "logprobs"} and len(row["tokens"]) == 4 for row in rows)
  capsys.readouterr()
  assert program.main(["main.py", f"--workdir={trained}", *more]) == 0
  assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows


def test_chat_answers_a_pipe(trained, monkeypatch, capsys):
  """With the run itself as the draft model, and two tokens forbidden, as without the draft model."""
  more, shown = ["--mode=chat", "--tokens=4", "--temperature=0", "--logit_bias=32=-inf", "--logit_bias=101=-9"], []
  for draft in ([], [f"--draft={trained}", "--num_speculative_tokens=2"]):
    monkeypatch.setattr("sys.stdin", io.StringIO("the scan\n/quit\n"))
    assert program.main(["main.py", f"--workdir={trained}", *more, *draft]) == 0
    shown.append(capsys.readouterr().out)
  assert shown[0] == shown[1]
  assert not set(" e") & set(shown[0].splitlines()[1])


def test_mistakes_of_a_chat_are_called_so(trained, mistaken):
  arguments = ["main.py", f"--workdir={trained}", "--mode=chat", "--tokens=4", "--stop="]
  mistaken(program.main, arguments, "error: chat: stop has an empty text")


def test_count_needs_no_workdir(capsys):
  assert program.main(["main.py", "--config=configs/text.py:mixer=softmax,width=8", "--mode=count"]) == 0
  assert "parameters" in capsys.readouterr().out


def test_sigterm_saves_and_the_same_command_ends_as_if_nothing_had_been(text, trained, tmp_path, monkeypatch, capsys):
  tick = metrics.Writer.tick

  def kill_at_three(self, step):
    tick(self, step)
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    patch.setattr(metrics.Writer, "tick", kill_at_three)
    assert program.main(command(text, tmp_path)) == program.STOPPED == 75
  assert "stopped at step 3, saved" in capsys.readouterr().err
  assert signal.getsignal(signal.SIGTERM) == before
  assert (tmp_path / "checkpoints" / "3").is_dir()
  assert max(row["step"] for row in rows(tmp_path)) == 2, "the evaluation of step 3 can wait"
  assert program.main(command(text, tmp_path)) == 0
  plain = lambda row: {key: value for key, value in row.items() if not key.endswith(("_per_s", "mfu", "peak_bytes"))}
  assert list(map(plain, rows(tmp_path))) == list(map(plain, rows(trained)))


def test_a_loss_that_is_not_finite_stops_the_run(text, tmp_path, capsys):
  sizes = ",lr=1e30,schedule=constant,warmup=0,save.every=1,clip=0.0"
  assert program.main(command(text, tmp_path, sizes=sizes)) == program.NOT_FINITE == 3
  error = capsys.readouterr().err
  assert "not finite at step 2" in error
  assert len(error.strip().splitlines()) == 1
  assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()] == ["1"]
  assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"


def test_average_accumulation_and_groups_work_together(text, tmp_path):
  sizes = ",ema=0.5,accumulate=2,optimizer.groups=[('embed',{'lr':0.0})]"
  assert program.main(command(text, tmp_path, sizes=sizes)) == 0
  assert program.main(["main.py", f"--workdir={tmp_path}", "--config.steps=7"]) == 0


BAD = [
  (["--config.modle.width=3"], ["config.modle.width", "did you mean 'model'"]),
  (["--config.model.widht=3"], ["config.model.widht", "did you mean 'width'"]),
  (["--config.model.width=wide"], ["config.model.width", "wide"]),
  (["--config.optimizer.name=adamm"], ["optimizer.name='adamm'", "adamw"]),
  (["--config.optimizer.groups=(('nothing',{'lr':1.0}),)"], ["'nothing'", "matches no parameter", "body/"]),
  (["--config.mesh.tensor=3"], ["mesh.tensor=3", "devices"]),
  (["--config.kernels=fast"], ["fast", "reference"]),
  (["--config.eval.chunk=-1"], ["eval.chunk=-1"]),
  (["--config.data.stateful=true"], ["data.stateful=True", "'grows'"]),
  (["--config.data.files=nowhere/*.txt"], ["nowhere"]),
  (["--config.model.head.zloss=1.0"], ["config.model.head.zloss", "did you mean 'z_loss'"]),
  (["--config.model.body.letters.m.name=fnet"], ["predicts the next token", "causal mixers"]),
  (["--config.model.body.letters.m.name=s5x"], ["no mixer is called 's5x'", "'s5'"]),
  (["--mode=trian"], ["mode", "train"]),
  (["--wrkdir=x"], ["wrkdir", "workdir"]),
  (["--steps", "10"], ["--steps is", "--config.steps=10", ":steps=10 after the config"]),
  (["--lr=0.1"], ["--config.optimizer.lr=0.1"]),
  (["--mode=eval"], ["holds no run", "config.json"]),
  (["--step=3"], ["--step=3", "eval"]),
  (["--temperature=1.0"], ["--temperature", "generate"]),
  (["--num_beams=2"], ["--num_beams", "generate"]),
  (["--prompt=a", "--mode=chat"], ["--prompt", "generate", "chat"]),
  (["--prompt=a", "--prompts=b", "--mode=generate"], ["--prompt ", "--prompts=b"]),
  (["--prompts=a.txt", "--out=./a.txt", "--mode=generate"], ["--out=./a.txt", "--prompts"]),
  (["--out=", "--mode=generate"], ["--out is empty"]),
  (["--out=nowhere/a.jsonl", "--mode=generate"], ["nowhere/a.jsonl", "does not exist; make it first"]),
  (["--out=README.md/a.jsonl", "--mode=generate"], ["README.md is a file"]),
  (["--temperature=0", "--num_return_sequences=2", "--mode=generate"], ["num_return_sequences=2 at temperature 0"]),
  (["--seed=1180591620717411303424", "--mode=generate"], ["--seed=1180591620717411303424", "32 bits"]),
  (["--num_beams=2", "--temperature=0.5", "--mode=generate"], ["--temperature", "beam search"]),
  (["--length_penalty=2", "--mode=generate"], ["--length_penalty", "--num_beams"]),
  (["--num_speculative_tokens=2", "--mode=chat"], ["--num_speculative_tokens", "--draft"]),
  (["--num_beams=2", "--draft=a", "--mode=generate"], ["--draft and --num_beams=2"]),
  (["--logit_bias=10", "--mode=generate"], ["logit_bias has '10'", "TOKEN=VALUE"]),
  (["--coordinator=localhost:1"], ["--processes", "--process"]),
  (["--coordinator=nonsense", "--processes=2", "--process=0"], ["--coordinator='nonsense'", "host:port"]),
  (["--config.optimizer.lr=nan"], ["optimizer.lr=nan"]),
  (["--config.optimizer.warmup=6"], ["optimizer.warmup=6", "steps=6"]),
  (["--config.log_every=-1"], ["log_every=-1"]),
  (["--config.mesh.cpu_devices=-1"], ["mesh.cpu_devices=-1"]),
  (["--config.save.keep=-1"], ["save.keep=-1"]),
  (["--config.save.best=eval/validation/f1"], ["save.best='eval/validation/f1'", "eval/validation/loss"]),
  (["--config.steps=3000000000"], ["steps=3000000000", "below 2^31"]),
  (["--config.generate.top_p=0.0"], ["top_p=0.0"]),
  (["--config.generate.top_k=99999999999"], ["top_k=99999999999"]),
  (["--config.generate.stop=(1,)"], ["stop has 1", "no text"]),
  (["--config.generate.stop=('',)"], ["stop has an empty text"]),
  (["--config.generate.logit_bias=('a=1',)"], ["logit_bias has 'a=1'", "TOKEN=VALUE"]),
  (["--config.data.batch=999999999999999999999"], ["data.batch=999999999999999999999", "below 2^31"]),
  (["--config.data.vocab=999999999999999999999"], ["vocab=999999999999999999999", "2^31"]),
  (["--config.model.width=999999999999"], ["width=999999999999", "2^31"]),
  (["--config.model.head.scale=nan"], ["scale=nan", "finite"]),
  (["--config.model.body.branch.skip=inf"], ["skip=inf", "finite"]),
  (["--config.optimizer.accumulate=99999999999"], ["optimizer.accumulate=99999999999"]),
  (["--config.wandb=maybe"], ["--config.wandb=maybe", "true or false"]),
  (["--config.optimizer=5"], ["--config.optimizer=5", "a section", "--config.optimizer."]),
  (["--config.steps=many"], ["--config.steps=many", "a whole number"]),
  (["--config.init_from=nowhere"], ["init_from=nowhere", "workdir"]),
  (["--config.seed=4294967296"], ["seed=4294967296", "32 bits"]),
  (["--config.generate.seed=4294967296"], ["generate.seed=4294967296", "32 bits"]),
  (["--from-step=3", "--mode=eval"], ["--from-step=3", "--step"]),
  (["--patience=0"], ["--patience=0"]),
  (["--from-step=3"], ["--from-step=3", "holds no run"]),
  (["--describe="], ["--describe=", "--list"]),
  (["--flagfile=/nowhere"], ["/nowhere"]),
  (["--config..x=1"], ["'.x'", "--config.KEY=VALUE"]),
  (["--noconfig.wandb=x"], ["--noconfig.wandb=x", "--config.KEY=VALUE"]),
  (["--workdir="], ["--workdir is empty"]),
  (["--list=mixer"], ["mixer", "mixers"]),
  (["stray"], ["'stray'"]),
]


@pytest.mark.parametrize("more, words", BAD, ids=[more[0] for more, _ in BAD])
def test_a_mistake_is_one_line(text, tmp_path, mistaken, more, words):
  mistaken(program.main, command(text, tmp_path / "new", *more), *words)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  "config, words",
  [
    ("configs/text.py:widht=3", ["widht", "width"]),
    ("configs/nothing.py", ["configs/nothing.py", "--list configs"]),
    ("configs/text.py:pattern=mz", ["'mz'", "['z']"]),
    ("configs/text.py:mixer=mambo", ["mambo", "mamba"]),
    ("configs/model.py:mamba_9b", ["'mamba_9b'", "there are mamba_130m", "mamba_2.8b"]),
    ("configs/model.py:batch=4", ["the name of a model comes first", "configs/model.py:mamba_130m,batch=4"]),
    ("configs/model.py:mamba_toy,vocab=100", ["vocab=100", "at least 256"]),
  ],
)
def test_a_mistaken_config_is_one_line(tmp_path, mistaken, config, words):
  mistaken(program.main, ["main.py", f"--config={config}", f"--workdir={tmp_path / 'new'}"], *words)


@pytest.mark.parametrize(
  "source, words",
  [
    ("import nothing_like_this", ["ModuleNotFoundError", "nothing_like_this"]),
    ("def get_config(arg=''): return 1 / 0", ["ZeroDivisionError"]),
    ("def get_config(arg=''):\n  return (", ["SyntaxError", "line 2"]),
    ("raise SystemExit(3)", ["SystemExit"]),
    ("def get_config(arg=''): pass", ["NoneType", "must return a ConfigDict"]),
    ("x = 1", ["get_config"]),
  ],
)
def test_a_config_file_that_fails_is_one_line(tmp_path, mistaken, source, words):
  (tmp_path / "own.py").write_text(source)
  arguments = ["main.py", f"--config={tmp_path / 'own.py'}", f"--workdir={tmp_path / 'new'}"]
  mistaken(program.main, arguments, "own.py", *words)
  assert not (tmp_path / "new").exists()


def test_a_workdir_of_another_model_is_refused_unharmed(text, trained, mistaken):
  before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
  mistaken(program.main, command(text, trained, "--config.model.width=16"), "model.width is 8 there and 16 here")
  mistaken(program.main, command(text, trained, "--config.optimizer.lr=0.5"), "optimizer.lr")
  mistaken(program.main, ["main.py", f"--workdir={trained}", "--mode=eval", "--step=5"], "checkpoint 5")
  for more in ("--temperature=-1", "--prompt=", "--tokens=5000", "--num_beams=0", "--prompts=no.txt", "--draft=no"):
    mistaken(program.main, ["main.py", f"--workdir={trained}", "--mode=generate", more], *re.findall("--draft", more))
  assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before


def test_a_mistake_about_generation_is_told_before_the_weights_are_read(tmp_path, monkeypatch, mistaken):
  monkeypatch.setattr(program.Run, "open", None)
  arguments = ["main.py", "--config=configs/bytes.py", f"--workdir={tmp_path}", "--mode=generate"]
  for more in (["--top_p=2"], ["--tokens=-1"], ["--num_beams=2", "--num_return_sequences=3"], ["--prompts=no.txt"]):
    mistaken(program.main, [*arguments, *more], more[-1].partition("=")[2])


def test_a_bug_keeps_its_traceback(text, tmp_path, monkeypatch):
  def broken(*args, **kwargs):
    # a ValueError that JAX raises, not one of ours
    return jax.numpy.zeros(3) + jax.numpy.zeros(4)

  monkeypatch.setattr(run.sharding, "make_mesh", broken)
  with pytest.raises((TypeError, ValueError), match="add got incompatible shapes"):
    program.main(command(text, tmp_path))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_too_little_memory_is_one_line(text, tmp_path, monkeypatch, capsys, error):
  def greedy(*args, **kwargs):
    raise error

  monkeypatch.setattr(run.sharding, "make_mesh", greedy)
  assert program.main(command(text, tmp_path)) == program.MISTAKE
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert "not enough memory" in line


@pytest.mark.parametrize("mode", ["train", "eval", "chat"])
def test_a_folder_without_a_run_is_named_where_there_is_no_config(tmp_path, mistaken, mode):
  folder = tmp_path / "nope"
  words = f"--config is missing, and {folder} holds no run"
  mistaken(program.main, ["main.py", f"--workdir={folder}", f"--mode={mode}"], words)


def test_debug_shows_where_a_mistake_comes_from(text, tmp_path, capsys):
  assert program.main(command(text, tmp_path, "--debug", "--config.optimizer.name=x")) == 2
  assert "Traceback" in capsys.readouterr().err


def test_help_lists_flags_and_exit_codes(capsys):
  assert program.main(["main.py", "--help"]) == 0
  out = capsys.readouterr().out
  assert "--workdir" in out
  assert "75 stopped" in out
