"""The JobSet and the SkyPilot job, checked with our schemas and with installed official ones."""

import copy
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import jsonschema
import pytest
import standins
import yaml

from ssl_jax import errors

COMMAND = ("python", "-m", "ssl_jax.train", "--workdir=/shared/a b", "--config.x=('y', 1)", '"$z"')
VALUES = {
    "gke_jobset.yaml": (
        *("NAME=run1", "IMAGE=registry/image:1", "CLAIM=shared", "SLICES=2", "HOSTS=4"),
        *("CHIPS=4", "ACCELERATOR=tpu-v6e-slice", "TOPOLOGY=4x4"),
    ),
    "skypilot.yaml": (
        *("NAME=run1", "NODES=4", "ACCELERATORS=H100:8", "SPOT=true", "EXTRA=cuda13"),
        "BUCKET=s3://bucket",
    ),
}
FILES = {"gke_jobset.yaml": "jobset.json", "skypilot.yaml": "skypilot.json"}


def rendered(name, *values):
    done = standins.launch("render.sh", "--print", name, *(values or VALUES[name]), "--", *COMMAND)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def schema(name):
    return json.loads((pathlib.Path(__file__).parent / "schemas" / FILES[name]).read_text())


def validate(task, name):
    jsonschema.validate(task, schema(name), format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("name", FILES)
def test_a_rendered_file_fits_the_schema(name):
    validate(rendered(name), name)


@pytest.mark.parametrize("name", FILES)
def test_an_unrendered_file_does_not_fit_the_schema(name):
    task = yaml.safe_load((standins.LAUNCH / name).read_text())
    with pytest.raises(jsonschema.ValidationError):
        validate(task, name)


def test_the_jobset_schema_refuses_what_the_api_server_refuses():
    task = rendered("gke_jobset.yaml")
    spec = ("spec", "replicatedJobs", 0, "template", "spec")
    for path, key, value in [
        (("spec", "failurePolicy"), "maxRestart", 3),
        (("spec", "failurePolicy", "rules", 0), "action", "Restart"),
        ((*spec, "podFailurePolicy", "rules", 1, "onExitCodes"), "values", [0]),
        ((*spec, "template", "spec"), "restartPolicy", "Always"),
        ((*spec, "template", "spec", "containers", 0), "imag", "x"),
        (("metadata",), "name", "Run_1"),
    ]:
        broken = copy.deepcopy(task)
        at = broken
        for step in path:
            at = at[step]
        at[key] = value
        with pytest.raises(jsonschema.ValidationError):
            validate(broken, "gke_jobset.yaml")


def test_a_jobset_runs_the_command_on_every_host_with_all_chips():
    spec = rendered("gke_jobset.yaml")["spec"]
    [slices] = spec["replicatedJobs"]
    job = slices["template"]["spec"]
    assert (slices["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["command"] == ["bash", "-c"]
    assert shlex.split(container["args"][0]) == ["exec", *COMMAND]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"


# Messages that Kubernetes' job controller writes into the condition of a failed Job.
EXIT = (
    "Container train for pod default/run1 failed with exit code {} matching FailJob rule at index 1"
)
DISRUPTED = "Pod default/run1 has condition DisruptionTarget matching FailJob rule at index 0"


def outcome(spec, code=None, disrupted=False):
    """Returns the JobSet controller's action after a host ends with `code` or is disrupted.

    Source: the documentation of JobSet and of Kubernetes' pod failure policy.
    """
    rules = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    if disrupted:
        assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
        reason, message = "PodFailurePolicy", DISRUPTED
    elif code in rules[1]["onExitCodes"]["values"]:
        reason, message = "PodFailurePolicy", EXIT.format(code)
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_a_jobset_restarts_after_crashes_and_fails_after_mistakes():
    spec = rendered("gke_jobset.yaml")["spec"]
    assert outcome(spec, errors.STOPPED_EARLY) == "RestartJobSetAndIgnoreMaxRestarts"
    assert outcome(spec, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (81, 134, 137, 139, 1):
        assert outcome(spec, code) == "RestartJobSet", code
    mistakes = {v for k, v in vars(errors).items() if k.isupper() and v not in (75, 81, 130)}
    assert {64, 78, 80} <= mistakes
    for code in mistakes:
        assert outcome(spec, code) == "FailJobSet", code


def test_a_skypilot_job_runs_the_command_in_its_environment(tmp_path):
    task = rendered("skypilot.yaml")
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [errors.STOPPED_EARLY]
    programs = standins.Standins(tmp_path)
    programs.put("python")
    subprocess.run(["bash", "-c", task["run"]], env=programs.environment, check=True, cwd=tmp_path)
    assert programs.calls() == [list(COMMAND)]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("gke_jobset.yaml", ["kubectl", "create", "-f"]),
        ("skypilot.yaml", ["sky", "jobs", "launch", "--yes", "--detach-run"]),
    ],
)
def test_render_submits_the_file_that_print_shows(name, call, tmp_path):
    programs = standins.Standins(tmp_path)
    submitted = tmp_path / "submitted.yaml"
    for program in ("kubectl", "sky"):
        programs.put(
            program, f"import shutil; shutil.copy(call[-1], {str(submitted)!r}); sys.exit(7)"
        )
    arguments = [name, *VALUES[name], "--", *COMMAND]
    done = standins.launch("render.sh", *arguments, environment=programs.environment)
    assert done.returncode == 7
    assert [line[:-1] for line in programs.calls()] == [call]
    assert yaml.safe_load(submitted.read_text()) == rendered(name)
    assert not os.path.exists(programs.calls()[0][-1])


def test_the_official_kubernetes_schema_accepts_the_job():
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate (large)"
    )
    template = rendered("gke_jobset.yaml")["spec"]["replicatedJobs"][0]["template"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **template}
    kubernetes_validate.validate(job, "1.31", strict=True)


def test_the_skypilot_parser_accepts_the_task(tmp_path):
    program = shutil.which("sky")
    if not program:
        pytest.skip("pip install skypilot (large), with its `sky` on PATH")
    file = tmp_path / "task.yaml"
    task = rendered("skypilot.yaml")
    # SkyPilot would look for the bucket and the checkout in the cloud.
    del task["file_mounts"], task["workdir"]
    file.write_text(yaml.safe_dump(task))
    script = f"import sky; print(sky.Task.from_yaml({str(file)!r}).num_nodes)"
    python = pathlib.Path(program).resolve().parent / "python"
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "4"
