"""The launch examples: they parse, and what they would start is what they say. No cluster is asked."""

import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml
from processes import ROOT

LAUNCH = ROOT / "examples" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
CONFIG = "configs/diffusion/imagenet256_dit_xl2.py"
# What a shell likes to take apart.
ARGUMENTS = [CONFIG, "--run-dir", "/shared/runs/a name", "--objective.net.depth", "$HOME 'x' \"y\" *;&"]
TRAIN = [".venv/bin/python", "train.py", *ARGUMENTS]

# Writes down how it was called, and ends with the status that it is told to.
STAND_IN = f"""#!{sys.executable} -IS
import json, os, sys
name = os.path.basename(sys.argv[0])
jax = {{key: value for key, value in os.environ.items() if key.startswith("JAX_")}}
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps([[name, *sys.argv[1:]], jax]) + "\\n")
sys.exit(int(os.environ.get("STATUS_" + name, 0)))
"""


@pytest.fixture
def shell(tmp_path):
    """Run bash in a folder where nothing real can be started; give its result and the calls that it made."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for name in ("srun", "scontrol", "uv", "gcloud"):
        stand_in(stand_ins / name)
    calls = tmp_path / "calls"

    def run(*arguments: str | pathlib.Path, cwd=tmp_path, **more: str):
        calls.unlink(missing_ok=True)
        environment = {"PATH": f"{stand_ins}:/usr/bin:/bin", "CALLS": str(calls), "HOME": str(tmp_path)} | more
        command = ["bash", *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=20)
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return run


def stand_in(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN)
    path.chmod(0o755)


def refused(done: subprocess.CompletedProcess[str], calls: list[Any], *words: str) -> None:
    assert done.returncode == 2
    assert not calls
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_stop_at_their_first_error(shell, script):
    done, _ = shell("-n", script)
    assert done.returncode == 0, done.stderr
    assert "\nset -euo pipefail\n" in script.read_text()
    assert os.access(script, os.X_OK)


def test_no_launcher_lets_uv_pass_signals_on():
    for file in [*SCRIPTS, LAUNCH / "jobset.yaml"]:
        code = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert not any("uv run" in line for line in code), file


# --- Slurm -------------------------------------------------------------------------------------------------------

# Options of sbatch that the script relies on, as sbatch(1) writes their values.
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "gres": r"gpu:\d+",
    "cpus-per-task": r"\d+",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "signal": r"([RB]:)?[A-Z0-9]+(@\d+)?",
    "requeue": None,
    "open-mode": r"append|truncate",
}


def sbatch_options() -> dict[str, str]:
    options = {}
    for line in (LAUNCH / "slurm.sh").read_text().splitlines():
        if line and not line.startswith("#"):
            break  # sbatch reads no further
        if line.startswith("#SBATCH"):
            option, _, value = line.removeprefix("#SBATCH --").partition("=")
            assert option not in options
            options[option] = value
    return options


def test_sbatch_understands_every_option_of_slurm_sh():
    options = sbatch_options()
    assert (LAUNCH / "slurm.sh").read_text().count("\n#SBATCH") == len(options), "an #SBATCH after the first command"
    for option, value in options.items():
        assert option in SBATCH
        assert re.fullmatch(SBATCH[option] or "", value), f"--{option}={value}"
    assert {"requeue", "nodes", "time"} <= options.keys()
    assert options["gres"] == f"gpu:{options['ntasks-per-node']}", "one task for each GPU, and each task sees them all"
    assert options["open-mode"] == "append", "a job that starts again goes on with its log"
    # The tasks get it (no "B:"), and it is the one whose status the script looks for.
    assert re.fullmatch(r"TERM@\d+", options["signal"])


def test_slurm_starts_one_python_for_each_task(shell):
    done, calls = shell(LAUNCH / "slurm.sh", *ARGUMENTS, SLURM_JOB_ID="7", SLURM_CPUS_PER_TASK="8")
    assert done.returncode == 0, done.stderr
    assert [call for call, _ in calls] == [
        ["uv", "sync", "--quiet", "--inexact", "--extra", "cuda"],
        ["srun", "--cpus-per-task=8", "--kill-on-bad-exit=0", *TRAIN],
    ]


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (2, False), (130, False), (143, True)])
def test_slurm_requeues_what_sigterm_stopped_and_nothing_else(shell, status, requeued):
    done, calls = shell(LAUNCH / "slurm.sh", CONFIG, SLURM_JOB_ID="7", STATUS_srun=str(status))
    assert done.returncode == status
    again = [call for call, _ in calls if call[0] == "scontrol"]
    assert again == ([["scontrol", "requeue", "7"]] if requeued else [])


def test_slurm_says_so_where_requeueing_is_not_allowed(shell):
    done, _ = shell(LAUNCH / "slurm.sh", CONFIG, SLURM_JOB_ID="7", STATUS_srun="143", STATUS_scontrol="1")
    assert done.returncode == 143
    assert "not requeued" in done.stderr


def test_slurm_trains_nothing_without_its_environment(shell):
    done, calls = shell(LAUNCH / "slurm.sh", CONFIG, STATUS_uv="3")
    assert done.returncode == 3
    assert [call[0] for call, _ in calls] == ["uv"]


def test_slurm_refuses_to_start_without_a_config(shell):
    refused(*shell(LAUNCH / "slurm.sh"), "CONFIG")


# --- TPU VMs -----------------------------------------------------------------------------------------------------


def test_tpu_vm_runs_the_same_command_on_every_worker(shell, tmp_path):
    done, [(call, _)] = shell(LAUNCH / "tpu_vm.sh", "pod", "us-west4-a", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    assert call[:-1] == [
        *("gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"),
        *("--zone", "us-west4-a", "--worker=all", "--command"),
    ]
    # What a worker makes of it: uv is not on the path of its shell, and lies where uv's installer puts it.
    home = tmp_path / "worker"
    stand_in(home / ".local/bin/uv")
    stand_in(home / "jaxgen/.venv/bin/python")
    (tmp_path / "bin" / "uv").unlink()
    done, calls = shell("-c", call[-1], cwd=home, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert [there for there, _ in calls] == [
        ["uv", "sync", "--quiet", "--inexact", "--extra", "tpu"],
        ["python", *TRAIN[1:]],
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["pod"],
        ["pod", "zone"],
        ["pod", "zone", CONFIG],
        ["pod", "zone", CONFIG, "--run-dir"],
        # Without a run folder each worker would have its own.
        ["pod", "zone", CONFIG, "--steps", "9"],
    ],
    ids=" ".join,
)
def test_tpu_vm_refuses_missing_arguments(shell, arguments):
    refused(*shell(LAUNCH / "tpu_vm.sh", *arguments), "NAME ZONE CONFIG --run-dir DIR")


# --- JobSet ------------------------------------------------------------------------------------------------------


# The fields that the example may use, with their types: jobset.x-k8s.io/v1alpha2, batch/v1 and core/v1. "!" ends those
# that the API or GKE must be given. A set holds the allowed values, a list the type of each item.
RULE = {
    "name": str,
    "action!": {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"},
    "onJobFailureReasons": [{"BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"}],
}
POD_RULE = {
    "action!": {"FailJob", "Ignore", "Count"},
    "onExitCodes": {"containerName": str, "operator!": {"In", "NotIn"}, "values!": [int]},
    "onPodConditions": [{"type!": str, "status!": {"True", "False", "Unknown"}}],
}
CONTAINER = {
    "name!": str,
    "image!": str,
    "workingDir": str,
    "command!": [str],
    "args": [str],
    "ports": [{"containerPort!": int}],
    "resources!": {"requests!": {"google.com/tpu!": int}, "limits!": {"google.com/tpu!": int}},
    "volumeMounts!": [{"name!": str, "mountPath!": str, "subPath": str}],
}
POD = {
    "restartPolicy!": {"Never"},  # a podFailurePolicy allows no other
    "terminationGracePeriodSeconds!": int,
    "nodeSelector!": {"cloud.google.com/gke-tpu-accelerator!": str, "cloud.google.com/gke-tpu-topology!": str},
    "containers!": [CONTAINER],
    "volumes!": [{"name!": str, "persistentVolumeClaim!": {"claimName!": str}}],
}
JOB = {
    "parallelism!": int,
    "completions!": int,
    "completionMode!": {"Indexed"},
    "backoffLimit!": int,
    "podFailurePolicy": {"rules!": [POD_RULE]},
    "template!": {"spec!": POD},
}
JOBSET = {
    "apiVersion!": {"jobset.x-k8s.io/v1alpha2"},
    "kind!": {"JobSet"},
    "metadata!": {"name!": str, "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": str}},
    "spec!": {
        "failurePolicy!": {"maxRestarts!": int, "rules": [RULE]},
        "replicatedJobs!": [{"name!": str, "replicas": int, "template!": {"spec!": JOB}}],
    },
}


def misfits(value: Any, schema: Any, path: str = "") -> list[str]:
    """Where `value` is not as `schema` says."""
    if isinstance(schema, set):
        return [] if value in schema else [f"{path}: {value!r} is none of {sorted(schema)}"]
    if isinstance(schema, type):
        return [] if type(value) is schema else [f"{path}: {value!r} is no {schema.__name__}"]
    if type(value) is not type(schema) or not value:
        return [f"{path}: {value!r} is no {type(schema).__name__} with something in it"]
    if isinstance(schema, list):
        return [found for i, item in enumerate(value) for found in misfits(item, schema[0], f"{path}[{i}]")]
    fields = {name.removesuffix("!"): inner for name, inner in schema.items()}
    found = [f"{path}.{name}: unknown" for name in value.keys() - fields.keys()]
    found += [f"{path}.{name[:-1]}: missing" for name in schema if name.endswith("!") and name[:-1] not in value]
    return found + [m for name in value.keys() & fields for m in misfits(value[name], fields[name], f"{path}.{name}")]


@pytest.fixture
def jobset():
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def test_the_jobset_is_one(jobset):
    assert misfits(jobset, JOBSET) == []
    [job] = jobset["spec"]["replicatedJobs"]
    # JobSet's webhook makes names of pods of these, which must fit into a DNS label.
    longest = f"{jobset['metadata']['name']}-{job['name']}-{job['replicas'] - 1}-99-abcde"
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,62}", longest)
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])


@pytest.mark.parametrize(
    ("path", "value"),
    [("kind", "Job"), ("spec.replicatedJobs", []), ("spec.failurePolicy.maxRestarts", "3"), ("spec.replicas", 1)],
)
def test_misfits_are_found(jobset, path, value):
    *parents, last = path.split(".")
    inner = jobset
    for name in parents:
        inner = inner[name]
    inner[last] = value
    [found] = misfits(jobset, JOBSET)
    assert found.startswith(f".{path}")


def test_the_jobset_has_a_pod_for_each_host_of_its_topology(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips, "TPUs are not shared"
    assert job["parallelism"] == job["completions"], "all hosts at once, each of them to its end"
    assert job["completions"] * chips == math.prod(map(int, topology.split("x"))) == 16
    assert job["backoffLimit"] == 0, "JobSet restarts all hosts; the Job must not restart one"
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_the_jobset_trains_in_a_folder_that_all_hosts_share(jobset):
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    python, script = container["command"]
    config, option, folder = container["args"]
    assert f"{container['workingDir']}/.venv/bin/python" == python
    assert (ROOT / script).exists()
    assert (ROOT / config).exists()
    assert option == "--run-dir"
    assert any(folder.startswith(f"{mount['mountPath']}/") for mount in container["volumeMounts"])


def test_the_jobset_does_not_count_preemptions_as_crashes(jobset):
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    [rule] = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    saved, evicted = job["podFailurePolicy"]["rules"]
    assert saved["onExitCodes"]["values"] == [143]
    assert saved["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_what_is_to_be_replaced_says_so(jobset):
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert "REPLACE" in pod["containers"][0]["image"]
    assert "REPLACE" in pod["volumes"][0]["persistentVolumeClaim"]["claimName"]


# --- README ------------------------------------------------------------------------------------------------------

PAGE = (LAUNCH / "README.md").read_text()
BY_HAND, MPI = re.findall(r"```\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_lines_by_hand_start_two_processes_of_one_run(shell):
    done, calls = shell("-c", BY_HAND + "wait\n")
    assert done.returncode == 0, done.stderr
    (one, jax), (other, others_jax) = sorted(calls, key=lambda call: call[1]["JAX_PROCESS_ID"])
    assert one == other
    assert [jax.pop("JAX_PROCESS_ID"), others_jax.pop("JAX_PROCESS_ID")] == ["0", "1"]
    assert jax == others_jax
    assert jax["JAX_NUM_PROCESSES"] == "2"
    assert re.fullmatch(r"[\w.]+:\d+", jax["JAX_COORDINATOR_ADDRESS"])
    assert one[:3] == ["uv", "run", "train.py"]
    assert (ROOT / one[3]).exists()


def test_mpirun_starts_two_processes_of_one_run():
    assert shlex.split(MPI)[:5] == ["mpirun", "-n", "2", ".venv/bin/python", "train.py"]
    assert (ROOT / shlex.split(MPI)[5]).exists()


def test_what_the_examples_name_is_there():
    for file in [LAUNCH / "README.md", LAUNCH / "jobset.yaml", *SCRIPTS]:
        for name in re.findall(r"(?:configs|examples|tests)/[\w/]+\.\w+", file.read_text()):
            assert (ROOT / name).exists(), f"{file.name} names {name}"
    assert {path.name for path in LAUNCH.iterdir()} - {"README.md"} <= set(re.findall(r"\w+\.\w+", PAGE))
