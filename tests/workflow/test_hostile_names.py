"""Names that a shell would take for commands: refused in one sentence, or taken as they are."""

from __future__ import annotations

import json
import shutil

import pytest

from mlclipsim import spec

pytestmark = pytest.mark.workflow

COMMANDS = "$(touch canary)`touch canary`;touch canary;'\"&&touch canary|touch canary>canary"
HOSTILE = [
    COMMANDS.replace(" ", "${IFS}"),
    f"-rf --config {COMMANDS}",
    "a b  c",
    "line\nbreak; touch canary",
    "d\u0435fault \u202e \U0001f600",
    "-n",
    "../../up",
    "{params.spec}",
    "a\\'b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_run_has_a_plain_name(name):
    with pytest.raises(spec.ConfigError, match="`run` is "):
        spec.load({"run": name}, planning=True)


@pytest.mark.parametrize("name", [HOSTILE[0], "line\nbreak; touch canary", "-n"])
@pytest.mark.parametrize(
    "setting",
    [
        lambda name: {"compare": ["default", name]},
        lambda name: {"preset": name},
        lambda name: {"encoder": name},
        lambda name: {"plugins": [name]},
        lambda name: {"catalog": {"encoders": {name: {"source": "untrained"}}}},
        lambda name: {"catalog": {"datasets": {"kodak": {"files": [{"name": f"../{name}"}]}}}},
        lambda name: {"references": {"roles": {name: 1}}},
        lambda name: {"compression": {"points": [name]}},
    ],
    ids=["compare", "preset", "encoder", "plugins", "catalog", "files", "roles", "points"],
)
def test_so_has_whatever_becomes_part_of_a_path_or_a_rule(setting, name):
    with pytest.raises(spec.ConfigError):
        spec.load(setting(name), planning=True)


@pytest.mark.parametrize("name", ["{params.spec}", "line\nbreak"])
def test_a_folder_that_snakemake_cannot_name_is_refused(name):
    with pytest.raises(
        spec.ConfigError, match=r"`compression\.weights` is .*, expected a folder in whose path"
    ):
        spec.load({"compression": {"weights": name}}, planning=True)


def test_folders_of_any_other_name_are_taken_literally(project):
    """Where files of codecs and assets lie is for the user to say: a cheap job on files there, and the
    commands of a whole run.
    """
    name = f"-rf {COMMANDS} caf\u00e9 \U0001f600 \\"
    (project.root / name).mkdir()
    shutil.copy2(project.root / "src/mlclipsim/compression/weights/manifest.json", project.root / name)
    settings = {"assets_dir": name, "compression": {"weights": name}}
    (project.root / "hostile.json").write_text(json.dumps(settings))
    layers = ["--configfile", "hostile.json", "--config", "preset=ci"]
    project.snakemake("table_trials", "--cores", "1", *layers)
    made = project.root / "results/ci/default"
    assert (made / "tables/table_trials.csv").stat().st_size > 0
    record = json.loads((made / "provenance/table_trials.json").read_text())["made_from"]
    assert list(record["inputs"]["manifest"]) == [f"{name}/manifest.json"]
    planned = project.snakemake("--dry-run", "--printshellcmds", *layers)
    assert "python -m mlclipsim step rate_task --spec" in planned.stdout + planned.stderr
    assert not list(project.root.rglob("canary*"))


def test_a_wrong_configuration_is_answered_without_a_place_in_the_snakefile(project):
    done = project.snakemake("--cores", "1", "--config", "run=a/b", check=False)
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert lines[-2:] == [
        "snakemake: 1 problem in the configuration:",
        "  - `run` is 'a/b', expected a name of at most 100 letters, digits, dots, underscores and hyphens, "
        "beginning with a letter or digit, other than shared",
    ]
    assert not [line for line in lines if "Snakefile" in line or "Error" in line]


def test_an_unknown_target_is_answered_with_those_that_there_are(project):
    done = project.snakemake("figure_9", "--cores", "1", "--config", "preset=ci", check=False)
    assert done.returncode == 1
    assert "figure_9 is neither a target nor a file that some rule makes; did you mean figure_" in done.stderr
