"""What a person may type wrong, and the one sentence that answers it: expected, actual, mend.

Exit code 2 where the command or the configuration is wrong, 1 where the work fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlclipsim import cli
from mlclipsim.images import write_png

ROOT = Path(__file__).resolve().parents[1]
SCENE_CLIP = "--encoder scene-clip --device cpu"
EXPORT = "pcmp export --output o --config preset=ci"

# The command line, the exit code, and words of the sentence. `img.png` is a sound image, `refs` and `dists`
# hold two each, `junk` is text, `empty` has no bytes, `lists.yaml` and the like are made below.
COMMANDS = [
    ("", 2, "the following arguments are required: command"),
    ("scroe refs dists", 2, "invalid choice: 'scroe'"),
    (
        "score",
        2,
        "expected REFERENCE DISTORTED, in this order, or --reference PATH --distorted PATH, got 0 by",
    ),
    ("score refs dists --batch-size many", 2, "invalid int value: 'many'; `mlclipsim score --help` shows"),
    ("score refs dists --device gpu", 2, "invalid choice: 'gpu'"),
    ("score refs dists --layers 1-99999999999", 2, "expected numbers and ranges like 1,3,5-8, got '1-9999"),
    (
        "score refs dists --output scores.xlsx",
        2,
        "expected --output ending in .csv or .jsonl, got scores.xlsx",
    ),
    (f"score refs dists {SCENE_CLIP} --pretrained refs", 2, "expected --pretrained as a tag or a file, got"),
    (
        f"score img.png empty {SCENE_CLIP}",
        1,
        "empty: not an image (expected JPEG, PNG, WebP, ..., got an empt",
    ),
    (f"score img.png nowhere.png {SCENE_CLIP}", 1, "nowhere.png: expected an image file or a folder of them"),
    (f"score img.png {'long' * 100} {SCENE_CLIP}", 1, "File name too long; check that path"),
    ("distort img.png out.png --family jpeg", 2, "expected --strength or --psnr, got neither; say how much"),
    ("distort img.png out.png --family jpeg --strength nan", 2, "expected --strength from 0 to 1, got nan"),
    ("distort img.png out.png --family jepg --strength 1", 2, "did you mean 'jpeg'?"),
    (
        "distort img.png out.png --family fog --strength 1 --seed -1",
        2,
        "expected --seed of 0 or more, got -1",
    ),
    ("distort junk out.png --family fog --strength 1", 1, "junk: not an image"),
    ("distort img.png junk/out.png --family fog --strength 1", 1, "cannot be written (File exists); choose"),
    ("compress img.png out --codec jpeg --quality 500", 2, "jpeg: expected a quality from 1 to 95, got 500"),
    ("compress img.png out --codec jpg --quality 50", 2, "codec 'jpg' is unknown; expected one of scene-f"),
    ("compress img.png junk/out --codec jpeg --quality 50", 1, "junk: File exists; check that path"),
    (
        "compress img.png out --codec jpeg --quality 50 --weights junk",
        2,
        "expected no weights, got junk; a cl",
    ),
    ("decompress nowhere out.png", 1, "nowhere: No such file or directory; check that path"),
    ("decompress refs out.png", 1, "refs: Is a directory; check that path"),
    ("decompress junk out.png", 1, "junk: expected a stream of `mlclipsim compress`, got a file of another"),
    ("decompress junk out.jpg", 2, "expected an output ending in .png, got out.jpg"),
    ("decompress junk out.png --codec nope", 2, "codec 'nope' is unknown"),
    (
        "codecs --measure jpeg",
        2,
        "expected --measure NAME and --images FOLDER together, got one of them; add",
    ),
    ("codecs --quality 3", 2, "--quality and --output belong to a measurement; add --measure NAME"),
    (
        "codecs --measure jpeg --images nowhere",
        2,
        "expected a folder with PNG files, got nowhere without any",
    ),
    ("encoders scene-clip", 2, "unrecognized arguments: scene-clip"),
    ("metrics --al", 2, "unrecognized arguments: --al"),
    ("fetch kodac", 2, "nothing to fetch is called 'kodac'; expected some of"),
    ("bench no_module:metric", 2, "there is no module 'no_module' in"),
    ("bench colour", 2, "expected code as module:name, got 'colour'; give both, with a colon between"),
    ("bench textwrap:dedent --batch-size 0", 2, "expected --batch-size of 1 or more, got 0; 64 is usual"),
    ("check-data kodac", 2, "data set 'kodac' is unknown; expected one of scenes, "),
    ("plan --cores 0", 2, "expected --cores of 1 or more, got 0"),
    ("doctor locl", 2, "preset 'locl' is unknown; did you mean 'local'?"),
    (
        "provenance results/ci/default/claims.json",
        1,
        "is not there; run the workflow first, which makes resul",
    ),
    ("provenance img.png", 1, "img.png is not below a folder named results; name a result of the workflow"),
    ("verify nowhere", 1, "nowhere is not there; run the workflow first"),
    ("bibtex nowhere", 1, "nowhere is not there; run the workflow first"),
    ("crate refs", 1, "refs is not below a folder named results"),
    ("pcmp", 2, "the following arguments are required: action"),
    ("pcmp info nowhere", 1, "nowhere is no published data set: it holds no dataset.json; name the folder"),
    ("pcmp verify refs --rebuild", 2, "--rebuild needs --references"),
    ("pcmp sample refs --output sheet.txt", 2, "expected a file ending in .png, .pdf, .svg, got sheet.txt"),
    ("pcmp sample refs --output sheet.png --pairs 0", 2, "expected at least one pair, got 0"),
    (f"{EXPORT} --shards 0", 2, "expected --shards of 1 or more, got 0"),
    (f"{EXPORT} --version two", 2, "'two' is not of the form major.minor.patch, such as 1.0.0"),
    ("pcmp export nowhere --output o", 1, "partition.parquet is not in nowhere; run the workflow first"),
    ("pcmp add-votes refs --votes v --voters w --output o", 1, "refs is no published data set"),
    ("step fitt --spec {}", 2, "invalid choice: 'fitt'"),
    ("step fit --spec {", 2, "--spec is no JSON"),
    (f"step fit --spec {'[' * 50_000}", 2, "--spec is no JSON (maximum recursion depth exceeded"),
    (
        'step fit --spec {"threads":"two"}',
        2,
        "--spec has threads 'two', expected a number from 1; correct it",
    ),
    (
        "step table_2 --spec {}",
        2,
        "this step needs --input with 'preference'; pass it, as the workflow's rule",
    ),
    ("step fit --spec {} --input pairs", 2, "--input 'pairs' is not of the form name=path; name the path"),
    (
        "step table_2 --spec {} --input preference=no.parquet",
        1,
        "no.parquet does not exist; run the step that",
    ),
    ("zoo --output weights", 2, "the following arguments are required: --work"),
]

# A configuration over the preset `ci`, and words of the line on it; all exit with 2.
SETTINGS = [
    ("sead: 1", "key 'sead' is unknown; did you mean 'seed'?"),
    ("seed: x", "`seed` is 'x', expected integer"),
    ("seed: -1", "`seed`: -1 is less than the minimum of 0"),
    (f"seed: {'9' * 400}", "(400 characters), expected integer"),
    (f"seed: {'9' * 5000}", "cannot be read as YAML in UTF-8 (Exceeds the limit (4300 digits)"),
    ("seed: 1\nseed: 2", "the key 'seed' stands there twice"),
    ("seed: 2026-11-22", "`seed` is datetime.date(2026, 11, 22), expected integer"),
    ("threads: 100000", "`threads`: 100000 is greater than the maximum of 1024"),
    ("votes: {epsilon: .nan}", "`votes.epsilon` is nan, expected number"),
    ("votes: {tie_log: .inf}", "`votes.tie_log` is inf, expected number"),
    ("votes: {min_votes: 50}", "`votes.min_votes` is 50, but of fold 0 only"),
    ("votes: {min_families: 9}", "`votes.min_families` is 9, but of fold 0 only"),
    ("preset: [ci]", "preset ['ci'] is unknown; did you mean 'ci'?"),
    ("run: ../elsewhere", "`run` is '../elsewhere', expected a name of at most 100 letters, digits"),
    ("run: a/b", "`run` is 'a/b', expected a name of"),
    ('run: "tidy\\n"', "`run` is 'tidy\\n', expected a name of"),
    ("run: d\u0435fault", "`run` is 'd\u0435fault', expected a name of"),  # the e is Cyrillic
    (f"run: {'a' * 300}", "(302 characters), expected a name of at most 100"),
    ("run: shared", "`run` is 'shared', expected a name of"),
    ("encoder: scene-clpi", "`encoder`: 'scene-clpi' is unknown; did you mean 'scene-clip'?"),
    ("encoder: s\u0441ene-clip", "is unknown; did you mean 'scene-clip'?"),  # the first c is Cyrillic
    ("catalog: {encoders: {../up: {source: untrained}}}", "is '../up', expected a name of at most 100 small"),
    ("catalog: {machines: {scene-dla: null}}", "`scene-dla` is None, expected object"),
    ("catalog: &itself {machines: *itself}", "key in `machines` 'machines' is unknown"),
    ("plugins: [../mine]", "is '../mine', expected the name of a Python module, as in an import: not a path"),
    ("plugins: [textwrap]", "plug-in 'textwrap' has no catalog"),
    ("metrics: []", "`metrics`: [] should be non-empty"),
    ("metrics: [psnr, psnr]", "`metrics`: ['psnr', 'psnr'] has non-unique elements"),
    ("folds: []", "`folds`: [] should be non-empty"),
    ("folds: [1]", "`folds.0` is 1, expected object"),
    ("folds: [{seen: null, held_out: [scene-dla]}]", "`folds.0.seen` is None, expected array"),
    ("folds: [{seen: [scene-dla], held_out: [scene-dla]}]", "family 'dla' is both in seen and in held_out"),
    (
        "references: {roles: {pcmp_train: 0}}",
        "`references.roles.pcmp_train`: 0 is less than the minimum of 1",
    ),
    ("compression: {rhos: [1.0]}", "1 rhos and 2 learning_rates, expected as many"),
    ("compression: {teacher: nobody}", "`compression.teacher`: 'nobody' is unknown"),
    ("threads: 2.0", "`threads` is 2.0, expected integer"),
    ("human: {datasets: [scenes]}", "'scenes' holds no opinions of people; take some of"),
    ("- a", "holds a list, expected keys and values"),
    ("a: [1", "cannot be read as YAML in UTF-8 (while parsing a flow sequence"),
    (
        "run: !!python/object/apply:os.system ['touch canary']",
        "could not determine a constructor for the tag",
    ),
    ("run: " + "[" * 100_000, "cannot be read as YAML in UTF-8 ("),
    ("run: a\0b", "cannot be read as YAML in UTF-8 ("),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory, with a sound image or two."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for number, name in enumerate("ab"):
        for place in ("refs", "dists"):
            write_png(tmp_path / place / f"{name}.png", noise[number])
    write_png(tmp_path / "img.png", noise[0])
    (tmp_path / "junk").write_text("no image, no stream, no weights")
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # which `step` and others set
    return tmp_path


def answer(arguments, capsys) -> tuple[int, str]:
    try:
        code = cli.main(arguments)
    except SystemExit as error:  # argparse's own
        code = error.code
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith("mlclipsim: ")
    assert "Traceback" not in error
    assert "--debug shows where" not in error  # as of errors that nobody thought of
    return code, error


def test_there_are_enough_of_them():
    assert len(COMMANDS) + len(SETTINGS) >= 60
    given = {line.split()[0] for line, _, _ in COMMANDS if line}
    known = cli._parser()._subparsers._group_actions[0].choices
    assert given >= set(known) - {"config"}  # which SETTINGS try


@pytest.mark.parametrize(("line", "code", "words"), COMMANDS)
def test_a_wrong_command_gets_one_sentence(line, code, words, folder, capsys):
    before = sorted(folder.rglob("*"))
    given, error = answer(line.split(), capsys)
    head = error.startswith("mlclipsim: 1 problem in the configuration:\n")
    assert (given, len(error.splitlines())) == (code, 1 + head)
    assert words in error.replace(str(folder) + "/", "")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(("text", "words"), SETTINGS)
def test_a_wrong_setting_gets_one_line(text, words, folder, capsys):
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    layers = ["--configfile", "mine.yaml"]
    if not text.startswith("preset"):
        layers += ["--config", "preset=ci"]
    code, error = answer(["config", *layers], capsys)
    head, *lines = error.splitlines()
    assert code == 2
    assert head.endswith("in the configuration:")
    assert [line for line in lines if words in line], error
    assert not (folder / "canary").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("style: pl\u00e4in".encode("latin-1"), "cannot be read as YAML in UTF-8"),
        (None, "mine.yaml cannot be read (No such file or directory); name a YAML file"),
        ("folder", "mine.yaml cannot be read (Is a directory); name a YAML file"),
    ],
    ids=["encoding", "missing", "folder"],
)
def test_a_file_that_is_no_configuration(content, words, folder, capsys):
    if content == "folder":
        (folder / "mine.yaml").mkdir()
    elif content is not None:
        (folder / "mine.yaml").write_bytes(content)
    code, error = answer(["config", "--configfile", "mine.yaml"], capsys)
    assert code == 2
    assert words in error


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("seed", "--config 'seed' is not of the form key=value; give a value"),
        ("seed=[1", "--config 'seed=[1' has no value in YAML"),
        ("seed={a: 1, a: 2}", "the key 'a' stands there twice"),
        ("run=a b", "`run` is 'a b', expected a name of"),
        ("=1", "key '' is unknown"),
    ],
)
def test_a_wrong_value_on_the_command_line(item, words, capsys):
    code, error = answer(["config", "--config", item], capsys)
    assert code == 2
    assert words in error


def test_what_configurations_may_hold_is_still_read(folder, capsys):
    text = "base: &base {tie_log: 0.5}\nvotes: {<<: *base, tie_log: 0.75}\n"  # a merge is no key twice
    (folder / "mine.yaml").write_text(text)
    code, error = answer(["config", "--configfile", "mine.yaml"], capsys)
    assert (code, error.count("\n")) == (2, 2)
    assert "key 'base' is unknown" in error
    (folder / "mine.yaml").write_text('votes: {tie_log: 0.75}\nrun: "1.5"\n')
    assert cli.main(["config", "--config", "preset=ci", "--configfile", "mine.yaml"]) == 0
    made = yaml.safe_load(capsys.readouterr().out)
    assert (made["votes"]["tie_log"], made["run"]) == (0.75, "1.5")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("plan --cores 0", 2, "expected --cores of 1 or more, got 0"),
        ("decompress nowhere out.png", 1, "nowhere: No such file or directory; check that path"),
    ],
)
def test_the_program_itself_answers_so(line, code, words, folder):
    command = [sys.executable, "-m", "mlclipsim", *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"mlclipsim: {words}\n")


def test_debug_shows_the_traceback(folder):
    command = [sys.executable, "-m", "mlclipsim", "--debug", "decompress", "nowhere", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "FileNotFoundError" in done.stderr
