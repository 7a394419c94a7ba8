"""What is submitted to clusters: scripts with the programs replaced, manifests against a copy of their schema."""

import json
import os
import subprocess

import pytest

from scripts.launch import main as launch
from scripts.launch import supervisor

FLAGS = ["--", "--config", "configs/mqar.py:mixer=s5", "--workdir", "/shared/a b"]
GKE = ["gke", "--name=x", "--image=i", "--accelerator=tpu-v5-lite-podslice"]
TPUS = [*GKE, "--chips=4", "--topology=4x4", "--nodes=4"]


def printed(capsys, *arguments):
  assert launch.main([arguments[0], "--dry-run", *arguments[1:], *FLAGS]) == 0
  return capsys.readouterr().out


def program(folder, name, text):
  path = folder / name
  path.parent.mkdir(exist_ok=True)
  path.write_text(f"#!/bin/sh\n{text}\n")
  path.chmod(0o755)


@pytest.mark.parametrize(
  "code, restarts, requeued",
  [
    (0, 0, False),
    (2, 0, False),
    (3, 0, False),
    (75, 0, True),
    (75, 9, True),
    (4, 0, True),
    (137, 1, True),
    (4, 2, False),
  ],
)
def test_a_slurm_job_is_queued_again_where_that_helps(tmp_path, monkeypatch, code, restarts, requeued):
  arguments = [
    "slurm",
    "--name=x",
    "--nodes=2",
    "--gpus=8",
    "--restarts=2",
    f"--folder={tmp_path}",
    "--sbatch=--account=a",
  ]
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
  program(tmp_path / "bin", "sbatch", 'echo "$@" >> sbatch')
  program(tmp_path / "bin", "srun", f'printf "%s\\n" "$@" > {tmp_path}/srun; exit {code}')
  program(tmp_path / "bin", "scontrol", f'echo "$@" > {tmp_path}/scontrol')
  assert launch.main([*arguments, f"--out={tmp_path / 'out'}", *FLAGS]) == 0
  assert (tmp_path / "out" / "sbatch").read_text() == "x.sbatch\n"
  script = (tmp_path / "out" / "x.sbatch").read_text()
  options = [line for line in script.splitlines() if line.startswith("#SBATCH")]
  for option in ("--signal=USR1@300", "--requeue", "--nodes=2", "--gpus-per-node=8", "--account=a", "--time=24:00:00"):
    assert f"#SBATCH {option}" in options
  environment = os.environ | {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts)}
  done = subprocess.run(["bash", tmp_path / "out" / "x.sbatch"], env=environment)
  assert done.returncode == code
  assert (tmp_path / "srun").read_text().splitlines() == [
    *("--kill-on-bad-exit=0", "--wait=120"),
    *("./dev", "run", *FLAGS[1:]),
  ]
  assert (tmp_path / "scontrol").exists() == requeued
  if requeued:
    assert (tmp_path / "scontrol").read_text() == "requeue 7\n"


def test_the_batch_shell_outlives_the_signal(tmp_path, monkeypatch, capsys):
  text = printed(capsys, "slurm", "--name=x", f"--folder={tmp_path}").partition("\n")[2].rpartition("\nsbatch")[0]
  program(tmp_path / "bin", "srun", "kill -USR1 $PPID; sleep 0.3; exit 75")
  program(tmp_path / "bin", "scontrol", f'echo "$@" > {tmp_path}/scontrol')
  environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
  assert subprocess.run(["bash", "-c", text], env=environment).returncode == 75
  assert (tmp_path / "scontrol").read_text() == "requeue 7\n"


# copied by hand, in part, from kubernetes-sigs/jobset's api/jobset/v1alpha2/jobset_types.go and, below `template`, from
# Kubernetes' batch/v1 and v1. A dict has these keys alone, those with a star are needed; a tuple is one of its values,
# a list is of its item
TEXT, NUMBER = str, int
CONTAINER = {
  "name*": TEXT,
  "image*": TEXT,
  "command": [TEXT],
  "env": [{"name*": TEXT, "value": TEXT}],
  "ports": [{"containerPort*": NUMBER}],
  "resources": {"limits": {"google.com/tpu": NUMBER, "nvidia.com/gpu": NUMBER}},
  "volumeMounts": [{"name*": TEXT, "mountPath*": TEXT}],
}
POD = {
  "restartPolicy*": ("Never", "OnFailure"),
  "nodeSelector": {
    "cloud.google.com/gke-tpu-accelerator": TEXT,
    "cloud.google.com/gke-tpu-topology": TEXT,
    "cloud.google.com/gke-accelerator": TEXT,
  },
  "terminationGracePeriodSeconds": NUMBER,
  "containers*": [CONTAINER],
  "volumes": [{"name*": TEXT, "persistentVolumeClaim": {"claimName*": TEXT}}],
}
EXITS = {"containerName": TEXT, "operator*": ("In", "NotIn"), "values*": [NUMBER]}
JOB = {
  "parallelism": NUMBER,
  "completions": NUMBER,
  "completionMode": ("Indexed", "NonIndexed"),
  "backoffLimit": NUMBER,
  "podFailurePolicy": {"rules*": [{"action*": ("FailJob", "Ignore", "Count", "FailIndex"), "onExitCodes": EXITS}]},
  "template*": {"spec*": POD},
}
ACTIONS = (
  *("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob"),
  "RestartJobAndIgnoreMaxRestarts",
)
REASONS = (
  *("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"),
)
RULE = {
  "name*": TEXT,
  "action*": ACTIONS,
  "onJobFailureReasons": [REASONS],
  "onJobFailureMessagePatterns": [TEXT],
  "targetReplicatedJobs": [TEXT],
}
JOBSET = {
  "apiVersion*": ("jobset.x-k8s.io/v1alpha2",),
  "kind*": ("JobSet",),
  "metadata*": {"name*": TEXT, "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": TEXT}},
  "spec*": {
    "network": {"enableDNSHostnames": bool, "subdomain": TEXT, "publishNotReadyAddresses": bool},
    "failurePolicy": {
      "maxRestarts": NUMBER,
      "restartStrategy": ("Recreate", "BlockingRecreate", "InPlaceRestart"),
      "rules": [RULE],
    },
    "replicatedJobs": [{"name*": TEXT, "replicas": NUMBER, "template*": {"spec*": JOB}}],
  },
}


def check(value, schema, where="manifest"):
  """Fails where a value does not follow its schema."""
  if isinstance(schema, dict):
    assert isinstance(value, dict), where
    known = {key.rstrip("*"): part for key, part in schema.items()}
    assert set(value) <= set(known), f"{where} has {set(value) - set(known)}"
    assert {key.rstrip("*") for key in schema if key.endswith("*")} <= set(value), where
    for key, item in value.items():
      check(item, known[key], f"{where}.{key}")
  elif isinstance(schema, list):
    assert isinstance(value, list), where
    for item in value:
      check(item, schema[0], f"{where}[]")
  elif isinstance(schema, tuple):
    assert value in schema, f"{where}={value!r}"
  else:
    assert type(value) is schema, f"{where}={value!r}"


@pytest.mark.parametrize(
  "arguments, nodes, slices",
  [(TPUS, 4, 1), ([*TPUS, "--slices=2"], 4, 2), ([*GKE[:3], "--accelerator=nvidia-h100-80gb", "--gpus=8"], 1, 1)],
)
def test_a_jobset_follows_its_schema(capsys, arguments, nodes, slices):
  name, _, rest = printed(capsys, *arguments).partition("\n")
  text, _, command = rest.rstrip().rpartition("\n\n") if "\n\n" in rest.rstrip() else rest.rstrip().rpartition("\n")
  manifest = json.loads(text)
  check(manifest, JOBSET)
  assert (name, command) == ("# x.json", "kubectl apply -f x.json")
  (replicated,) = manifest["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  assert (replicated["replicas"], job["parallelism"], job["completions"]) == (slices, nodes, nodes)
  (container,) = job["template"]["spec"]["containers"]
  assert container["command"][2].endswith("./dev run --config configs/mqar.py:mixer=s5 --workdir '/shared/a b'")
  # GPUs' processes find each other by the names of the pods, TPUs' by what GKE sets
  meet = {each["name"]: each["value"] for each in container["env"]}
  expected = (
    {} if "--chips=4" in arguments else {"JAX_COORDINATOR_ADDRESS": "x-workers-0-0.x:8476", "JAX_NUM_PROCESSES": "1"}
  )
  assert meet == expected
  assert ("JAX_PROCESS_ID=$JOB_COMPLETION_INDEX" in container["command"][2]) == bool(expected)


@pytest.mark.parametrize(
  "change",
  [
    lambda m: m["spec"].update(failurePolcy={}),
    lambda m: m["spec"]["failurePolicy"]["rules"][0].update(action="Restart"),
    lambda m: m["spec"]["failurePolicy"].update(maxRestarts="10"),
    lambda m: m["spec"]["replicatedJobs"][0].pop("name"),
  ],
)
def test_the_schema_finds_what_is_wrong(capsys, change):
  manifest = json.loads(printed(capsys, *TPUS).partition("\n")[2].rpartition("kubectl")[0])
  change(manifest)
  with pytest.raises(AssertionError, match="manifest"):
    check(manifest, JOBSET)


@pytest.mark.parametrize("codes, tries, end", [("0", 1, 0), ("75 0", 2, 0), ("1 1 1", 3, 1), ("3", 1, 3)])
def test_the_loop_of_a_tpu_vm_is_bounded(tmp_path, monkeypatch, capsys, codes, tries, end):
  program(tmp_path / "bin", "gcloud", 'for last; do :; done; exec sh -c "${last#--command=}wait"')
  program(tmp_path / "bin", "sleep", "exit 0")
  program(tmp_path, "dev", 'echo "$@" >> calls; set -- $(cat codes); echo $2 $3 $4 > codes; echo code $1; exit $1')
  (tmp_path / "codes").write_text(codes)
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
  monkeypatch.chdir(tmp_path)
  assert (
    launch.main(["tpu", "--name=x", "--zone=z", f"--folder={tmp_path}", "--restarts=2", f"--out={tmp_path}", *FLAGS])
    == 0
  )
  assert (tmp_path / "calls").read_text().splitlines() == [
    "run --config configs/mqar.py:mixer=s5 --workdir /shared/a b"
  ] * tries
  assert (tmp_path / "x.log").read_text().splitlines()[-1] == f"code {end}"


@pytest.mark.parametrize("codes, tries, end", [([0, 0], 1, 0), ([4, 137], 3, 137), ([3, 4], 1, 3), ([75, 75], 3, 75)])
def test_processes_over_ssh_are_started_together_and_again(tmp_path, monkeypatch, codes, tries, end):
  program(tmp_path / "bin", "ssh", f'for last; do :; done; cd {tmp_path}; eval "$last"')
  program(
    tmp_path,
    "dev",
    'for last; do :; done; echo "$@" >> calls; n=${last#--process=}; set -- $(cat codes); shift $n; exit $1',
  )
  (tmp_path / "codes").write_text(" ".join(map(str, codes)))
  monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
  monkeypatch.setattr(supervisor, "PAUSE", 0.0)
  arguments = [
    "ssh",
    "--name=x",
    "--hosts",
    "me@one",
    "two",
    f"--folder={tmp_path}",
    f"--out={tmp_path}",
    "--restarts=2",
  ]
  assert launch.main([*arguments, *FLAGS]) == end
  calls = sorted((tmp_path / "calls").read_text().splitlines())
  start = "run --config configs/mqar.py:mixer=s5 --workdir /shared/a b --coordinator=one:8476 --processes=2"
  assert calls == sorted([f"{start} --process={i}" for i in range(2)] * tries)


# stands in for main.py: in the first try the second process is killed, and another one may be suspended for ever
WORKS = """
import os, pathlib, signal, sys, time
number = int(sys.argv[-1].removeprefix("--process="))
here = pathlib.Path(__file__).parent
tries = here / f"tries-{number}"
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
(here / "flags").write_text(" ".join(sys.argv[1:-3]))
if len(tries.read_text()) == 1:
  if number == 1:
    while not all((here / f"tries-{i}").exists() for i in (0, 2)):
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
  if number == int(sys.argv[1]):
    os.kill(os.getpid(), signal.SIGSTOP)
  sys.exit(4)
"""


@pytest.mark.parametrize("suspended", [-1, 0])
def test_processes_on_this_machine_are_started_again_when_one_is_killed(tmp_path, monkeypatch, capsys, suspended):
  (tmp_path / "main.py").write_text(WORKS)
  monkeypatch.setattr(supervisor, "PAUSE", 0.0)
  arguments = ["local", "--name=x", "--processes=3", f"--folder={tmp_path}", f"--out={tmp_path}", "--restarts=1"]
  assert launch.main([*arguments, f"--grace={60 if suspended < 0 else 2}", "--", str(suspended), "--workdir=w"]) == 0
  assert [(tmp_path / f"tries-{i}").read_text() for i in range(3)] == ["xx"] * 3
  assert (tmp_path / "flags").read_text() == f"{suspended} --workdir=w"
  codes = [4 if suspended < 0 else -9, -9, 4]
  assert f"exit codes {codes}; starting again, 1 of 1 times" in capsys.readouterr().err


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["slurm", "--name=X", *FLAGS], "--name 'X'"),
    (["slurm", "--name=x", "--nodes=0", *FLAGS], "--nodes 0"),
    (["slurm", "--name=x", "--restarts=-1", *FLAGS], "--restarts -1"),
    (["slurm", "--name=x", "--", "--config=a"], "--workdir"),
    (["local", "--name=x", "--grace=-1", *FLAGS], "--grace -1"),
    (["local", "--name=x", "--processes=0", *FLAGS], "--processes 0"),
    ([*GKE, *FLAGS], "either --chips"),
    ([*GKE, "--chips=4", *FLAGS], "belong together"),
    ([*GKE, "--gpus=4", "--slices=2", *FLAGS], "--slices 2"),
    ([*TPUS[:-1], "--nodes=3", *FLAGS], "--topology 4x4 has 16 chips, which are 4 nodes of --chips 4; --nodes 3"),
    ([*GKE, "--chips=3", "--topology=4x4", *FLAGS], "16 chips, which nodes of --chips 3 cannot share"),
    ([*GKE, "--chips=4", "--topology=four", *FLAGS], "--topology 'four'"),
    (["ssh", "--dry-run", "--name=x", "--hosts", "a", "--", "--config=configs/texxt.py", "--workdir=w"], "text.py'?"),
    (["slurm", "--dry-run", "--name=x", "--", "--config", "bytes.py:stpes=3", "--workdir=w"], "bytes"),
    (["slurm", "--name=x", "--", "--config", "configs/bytes.py:stpes=3", "--workdir=w"], "no key 'stpes'"),
    (["tpu", "--name=x", "--zone=z", *FLAGS, "--config.stpes=3"], "'stpes'"),
    (["local", "--dry-run", "--name=x", *FLAGS, "--sedd=3"], "sedd"),
  ],
)
def test_mistakes_are_one_line(mistaken, arguments, message):
  mistaken(launch.main, arguments, message)


def test_what_only_the_machines_have_is_left_to_them(tmp_path, capsys):
  for config in (["--config=/there/x.py:stpes=3"], []):
    assert launch.main(["slurm", "--dry-run", "--name=x", "--", *config, f"--workdir={tmp_path}/run"]) == 0
  assert "stpes=3" in capsys.readouterr().out


def test_a_dry_run_over_ssh_shows_where_the_commands_run(tmp_path, capsys):
  out = printed(capsys, "ssh", "--name=x", f"--folder={tmp_path}/a b", "--hosts", "one", "two")
  assert out.splitlines()[1].startswith(f"two: cd '{tmp_path}/a b' && ./dev run --config ")


def test_a_program_that_is_not_there_is_named(tmp_path, monkeypatch, mistaken):
  monkeypatch.setenv("PATH", str(tmp_path))
  arguments = ["slurm", "--name=x", f"--out={tmp_path / 'out'}", *FLAGS]
  mistaken(launch.main, arguments, "sbatch is not installed here; --dry-run")
