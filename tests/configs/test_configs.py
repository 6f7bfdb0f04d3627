"""Every file of configs/ is read by the tool it is for, and every command in it exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipelines.cli import program

CONFIGS = Path(__file__).parents[2] / "configs"
UNITS = sorted((CONFIGS / "systemd").iterdir())
COMMAND = program()


def test_every_file_is_examined_here_or_in_test_docs() -> None:
    examined = {
        "bucket-lifecycle.json", "crontab", "dask.toml", "iam-policy.json", "kubernetes/cronjob.yaml", "local.toml",
        "s3.toml", *(f"systemd/{unit.name}" for unit in UNITS),
    }  # fmt: skip
    assert {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_file()} == examined


def parse(command: str) -> None:
    """Have the program's own parser read a command line; it raises what a user would be told."""
    name, *arguments = shlex.split(command)
    assert Path(name).name == "sessionlake"
    group, context = COMMAND, COMMAND.make_context("sessionlake", arguments)
    while hasattr(group, "commands"):
        name, group, arguments = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, arguments, parent=context)


def cron_lines() -> list[tuple[str, str]]:
    lines = (CONFIGS / "crontab").read_text().splitlines()
    fields = (line.split(None, 5) for line in lines if line and not line.startswith("#"))
    return [(" ".join(five), command) for *five, command in fields]


def test_the_parser_refuses_what_does_not_exist() -> None:
    for wrong in ("sessionlake sweeep", "sessionlake sweep --no-such-flag", "sessionlake compact --workers many"):
        with pytest.raises(typer.exceptions.TyperException):
            parse(wrong)


@pytest.mark.parametrize(("schedule", "command"), cron_lines())
def test_a_line_of_the_crontab(schedule: str, command: str) -> None:
    croniter = pytest.importorskip("croniter")
    assert croniter.croniter.is_valid(schedule, strict=True)
    parse(command)


def test_the_crontab_does_all_regular_work() -> None:
    assert {command.split()[3] for _, command in cron_lines()} >= {"sweep", "compact", "maintain", "verify"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    program = tmp_path / "sessionlake"
    program.symlink_to(sys.executable)  # systemd looks whether the program exists
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/sessionlake", str(program)))
    files = [str(tmp_path / unit.name) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_LOG_LEVEL": "notice"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_would_notice_a_misspelt_directive(tmp_path: Path) -> None:
    unit = tmp_path / "wrong.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nProtectSistem=strict\n")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "ProtectSistem" in done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_there_is_or_a_unit_there_is(unit: Path) -> None:
    text = unit.read_text()
    if unit.suffix == ".timer":
        assert unit.with_suffix(".service") in UNITS
        return
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    parse(command)


def test_kubernetes_accepts_the_cron_job() -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    croniter = pytest.importorskip("croniter")
    yaml = pytest.importorskip("yaml")
    manifest = yaml.safe_load((CONFIGS / "kubernetes" / "cronjob.yaml").read_text())
    kubernetes.validate(manifest, kubernetes.latest_version(), strict=True)
    assert croniter.croniter.is_valid(manifest["spec"]["schedule"])
    pod = manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    parse(shlex.join(container["args"]))
    settings = {variable["name"]: variable["value"] for variable in container["env"]}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        from archiver.settings import load_settings

        assert load_settings().storage.url == settings["SESSIONLAKE_STORAGE__URL"]
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
        assert load_settings().tables.memory_limit < limit
    del container["image"]
    container["command"] = "sessionlake"  # a list is wanted
    with pytest.raises(kubernetes.utils.ValidationError):
        kubernetes.validate(manifest, kubernetes.latest_version(), strict=True)


@pytest.mark.slow
def test_cloudformation_accepts_the_iam_policy(tmp_path: Path) -> None:
    pytest.importorskip("cfnlint")
    text = (CONFIGS / "iam-policy.json").read_text()
    policy = json.loads(text.replace("ACCOUNT", "1" * 12).replace("REGION", "eu-central-1"))
    assert lint(tmp_path, policy) == []
    policy["Statement"][0]["Action"] = ["s3:ListEverything"]
    assert any("listeverything" in finding.lower() for finding in lint(tmp_path, policy))


def lint(directory: Path, policy: dict[str, object]) -> list[str]:
    """What cfn-lint says about a policy, as the policy of a role's managed policy."""
    template = directory / "template.json"
    resource = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
    template.write_text(json.dumps({"Resources": {"Policy": resource}}))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "cfn-lint"), "--format", "json", str(template)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [finding["Message"] for finding in json.loads(done.stdout)]


def test_s3_accepts_the_lifecycle(moto_s3: object) -> None:
    rules = json.loads((CONFIGS / "bucket-lifecycle.json").read_text().replace("PREFIX", "lake"))
    client = moto_s3.client()  # type: ignore[attr-defined]
    client.create_bucket(Bucket="lifecycle")
    client.put_bucket_lifecycle_configuration(Bucket="lifecycle", LifecycleConfiguration=rules)
    stored = client.get_bucket_lifecycle_configuration(Bucket="lifecycle")["Rules"]
    assert [rule["ID"] for rule in stored] == [rule["ID"] for rule in rules["Rules"]]
    assert not any("Expiration" in rule and rule["Filter"]["Prefix"] == "lake/" for rule in stored), "nothing archived"
