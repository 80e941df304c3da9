"""The command line: exit codes, one-sentence errors, and what reaches a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mlclipsim import cli, steps


@pytest.fixture
def recorded(monkeypatch):
    """Steps are recorded instead of run; the environment is put back."""
    calls = []

    def step(spec, inputs, outputs):
        calls.append((spec, inputs, outputs))
        for path in outputs.values():
            path.write_text("made")

    monkeypatch.setattr(steps, "function", lambda name: step)
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "MPLBACKEND",
        "OMP_WAIT_POLICY",
    ):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return calls


def test_step_passes_spec_and_paths(recorded, tmp_path):
    spec = {"threads": 3, "seed": 1}
    source, out = tmp_path / "a b.parquet", tmp_path / "w.json"
    source.write_text("x")
    arguments = [
        "step",
        "fit",
        "--spec",
        json.dumps(spec),
        "--input",
        f"pairs={source}",
        "--output",
        f"weights={out}",
    ]
    assert cli.main(arguments) == 0
    ((given, inputs, outputs),) = recorded
    assert given == spec
    assert inputs == {"pairs": source}
    assert outputs == {"weights": out}
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_lists_are_lists_even_of_one(recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("y")
    base = ["step", "figure_3", "--spec", "{}", "--output", f"csv={tmp_path / 'x'}"]
    assert cli.main([*base, "--input", "weights=a"]) == 0
    assert cli.main([*base, "--input", "weights=a", "b"]) == 0
    assert cli.main([*base, "--input", "weights=a", "--input", "weights=b"]) == 0
    assert [[str(p) for p in inputs["weights"]] for _, inputs, _ in recorded] == [
        ["a"],
        ["a", "b"],
        ["a", "b"],
    ]


def test_every_step_leaves_its_provenance(recorded, tmp_path):
    source, table, record = tmp_path / "in", tmp_path / "t.csv", tmp_path / "p.json"
    source.write_text("x")
    arguments = [
        "step",
        "table_2",
        "--spec",
        '{"preset":"ci","run":"default"}',
        "--input",
        f"preference={source}",
    ]
    assert cli.main([*arguments, "--output", f"csv={table}", "--output", f"provenance={record}"]) == 0
    assert recorded[0][2] == {"csv": table}
    assert json.loads(record.read_text())["made_from"]["preset"] == "ci"

    # Where the rule names no place, it lies beside the first output.
    assert cli.main([*arguments, "--output", f"csv={table}", "--output", f"md={tmp_path / 'm'}"]) == 0
    assert json.loads((tmp_path / "provenance/t.json").read_text())["made_from"]["step"] == "table_2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["step", "fit", "--spec", "{"], "--spec is no JSON"),
        (["step", "fit", "--spec", "[]"], "--spec is a list, expected a JSON object"),
        (["step", "fit", "--spec", "{}", "--input", "pairs"], "not of the form name=path"),
        (["config", "--config", "preset"], "not of the form key=value"),
        (["config", "--config", "preset=embeded"], "did you mean 'embedded'?"),
        (["config", "--configfile", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("mlclipsim: ")
    assert message in error
    assert "Traceback" not in error


def test_unknown_step_exits_with_2():
    with pytest.raises(SystemExit) as caught:
        cli.main(["step", "fitt", "--spec", "{}"])
    assert caught.value.code == 2


def test_failing_step_exits_with_1_and_debug_shows_the_traceback(monkeypatch, capsys, recorded):
    def fail(spec, inputs, outputs):
        raise ValueError("expected this,\n got that; mend it")

    monkeypatch.setattr(steps, "function", lambda name: fail)
    assert cli.main(["step", "fit", "--spec", "{}"]) == 1
    assert capsys.readouterr().err == "mlclipsim: expected this, got that; mend it\n"
    with pytest.raises(ValueError, match="mend it"):
        cli.main(["--debug", "step", "fit", "--spec", "{}"])


def test_a_step_without_memory_says_so_in_one_sentence(monkeypatch, capsys, recorded):
    def fail(spec, inputs, outputs):
        raise MemoryError("Unable to allocate 3.00 GiB for an array")

    monkeypatch.setattr(steps, "function", lambda name: fail)
    assert cli.main(["step", "fit", "--spec", "{}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mlclipsim: expected enough memory, there was none left")


def test_a_job_of_a_run_that_has_ended_does_nothing(monkeypatch, capsys, recorded, tmp_path):
    monkeypatch.setenv("MLCLIPSIM_RUN", str(2**22 + 1))
    assert cli.main(["step", "fit", "--spec", "{}", "--output", f"weights={tmp_path / 'w'}"]) == 1
    assert "which has ended; start it again" in capsys.readouterr().err
    assert not recorded


def test_config_prints_what_the_layers_make(capsys):
    import yaml

    assert cli.main(["config", "--config", "preset=ci", "seed=5"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["preset"], printed["seed"], printed["fit"]["bootstrap"]) == ("ci", 5, 20)


def test_pcmp_export_takes_seed_and_folds_from_the_configuration(monkeypatch, capsys, tmp_path):
    from mlclipsim.pcmp import export

    calls = []
    monkeypatch.setattr(
        export,
        "export",
        lambda *paths, **settings: calls.append((paths, settings)) or SimpleNamespace(**settings),
    )
    arguments = ["pcmp", "export", "--output", str(tmp_path / "pcmp"), "--shards", "3", "--without-images"]
    assert cli.main([*arguments, "--config", "preset=ci", "seed=5"]) == 0
    assert "pcmp-ci 1.0.0" in capsys.readouterr().out
    ((folders, output), settings) = calls[0]
    assert [folder.name.rpartition("-")[0] for folder in folders] == list(export.STEPS)
    assert output == tmp_path / "pcmp"
    assert (settings["seed"], settings["shards"], settings["images"]) == (5, 3, False)
    assert settings["config"]["pcmp_images"]["seed"] == 5
    assert settings["folds"][0]["seen"]
    # Tables of another configuration would give a recipe with the wrong seed.
    other = str(tmp_path / "votes-00000000")
    assert cli.main([*arguments, "--config", "preset=ci", "--", other]) == 2
    assert "is not of this configuration, whose votes has digest" in capsys.readouterr().err


def test_pcmp_info_is_a_few_lines_or_one_sentence(capsys, tmp_path):
    assert cli.main(["pcmp", "info", str(tmp_path)]) == 1
    assert "is no published data set" in capsys.readouterr().err


def test_zoo_is_passed_through(monkeypatch):
    from mlclipsim.world import zoo

    seen = []
    monkeypatch.setattr(zoo, "main", lambda argv: seen.append(argv) or 0)
    assert cli.main(["zoo", "--output", "x", "--work", "y"]) == 0
    assert seen == [["--output", "x", "--work", "y"]]


@pytest.fixture
def scenes(tmp_path, monkeypatch):
    """refs/ and dists/ with images a and b in common, c and d alone; the working directory."""
    from mlclipsim.images import write_png

    rng = np.random.default_rng(0)
    for folder, names in (("refs", "abc"), ("dists", "abd")):
        for name in names:
            write_png(tmp_path / folder / f"{name}.png", rng.integers(0, 256, (64, 64, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


SCENE_CLIP = ["--encoder", "scene-clip", "--device", "cpu"]


def test_score_of_two_images_is_a_number_and_what_made_it(scenes, capsys):
    assert cli.main(["score", "refs/a.png", "refs/a.png", *SCENE_CLIP]) == 0
    output, error = capsys.readouterr()
    assert output == "1.000000\n"
    assert error.count("\n") == 1
    for part in ("encoder scene-clip", "weights uniform", "layers 1 2 3 4 5 6 global", "size policy resize"):
        assert part in error
    command = ["score", "--distorted", "dists/a.png", "--reference", "refs/a.png", "--layers", "1,3-4"]
    assert cli.main([*command, "--per-layer", "--size-policy", "native", *SCENE_CLIP]) == 0
    output, error = capsys.readouterr()
    first, *rest = output.splitlines()
    layers = {name: float(value) for name, value in map(str.split, rest)}
    assert list(layers) == ["layer_01", "layer_03", "layer_04", "global"]
    assert float(first) == pytest.approx(np.mean(list(layers.values())), abs=2e-6)
    assert "layers 1 3 4 global, size policy native" in error


def test_score_of_folders_is_a_table_then_what_is_missing(scenes, capsys):
    (scenes / "dists" / "b.png").write_text("no image")
    command = ["score", "refs", "dists", "--output", "out/scores.jsonl", "--map", "out/maps", *SCENE_CLIP]
    assert cli.main(command) == 1
    output, error = capsys.readouterr()
    assert output == ""
    summary, *problems = error.splitlines()
    assert summary.startswith("mlclipsim: 1 of 2 pairs: ")
    assert "encoder scene-clip" in summary
    assert [line.split(": ")[1:] for line in problems] == [
        ["dists/b.png", "not an image (expected JPEG, PNG, WebP, ..., got 8 bytes of another kind)"],
        ["refs/c.png", "unpaired, no image named c in dists"],
        ["dists/d.png", "unpaired, no image named d in refs"],
    ]
    (row,) = map(json.loads, (scenes / "out" / "scores.jsonl").read_text().splitlines())
    assert (row["name"], row["reference"], row["encoder"]) == ("a", "refs/a.png", "scene-clip")
    assert [path.name for path in (scenes / "out" / "maps").iterdir()] == ["a.png"]


def test_score_against_one_reference_prints_csv(scenes, capsys):
    assert cli.main(["score", "refs/a.png", "dists", *SCENE_CLIP]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("name,reference,distorted,score,")
    assert {"encoder", "weights", "layers", "size_policy"} < set(header.split(","))
    assert [row.split(",")[:3] for row in rows] == [[n, "refs/a.png", f"dists/{n}.png"] for n in "abd"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["refs/a.png"], 2, "expected REFERENCE DISTORTED, in this order"),
        (["refs/a.png", "refs/b.png", "refs/c.png"], 2, "got 3 by position and 0 by option"),
        (["--reference", "refs/a.png", "refs/b.png"], 2, "got 1 by position and 1 by option"),
        (["refs", "dists", "--batch-size", "0"], 2, "expected --batch-size of 1 or more"),
        (["refs", "dists", "--output", "scores.txt"], 2, "expected --output ending in .csv or .jsonl"),
        (["refs", "dists", "--map", "m", "--weights", "global"], 2, "--map needs layers"),
        (["refs", "dists", "--map", "dists/maps"], 2, "--map dists/maps is among the images of dists"),
        (["refs/a.png", "dists/a.png", "--map", "dists"], 2, "among the images of dists/a.png"),
        (["refs", "dists", "--encoder", "scene-clap"], 2, "did you mean scene-clip"),
        (["refs", "dists", "--encoder", "ViT-B-32", "--pretrained", "openai"], 2, "use ViT-B-32-quickgelu"),
        (["refs", "dists", "--encoder", "scene-clip", "--weights", "unifrom"], 2, "expected uniform, global"),
        (["refs", "dists", "--encoder", "scene-clip", "--layers", "9"], 2, "layers within 1..6"),
        (
            ["refs", "dists", "--encoder", "scene-clip", "--pretrained", "no.pt"],
            1,
            "no.pt: expected a checkp",
        ),
        (["refs", "dists/a.png"], 1, "is a folder but"),
        (["refs", "no"], 1, "no: expected an image file or a folder"),
        (["refs", "dists", *SCENE_CLIP, "--output", "refs/a.png/s.csv"], 1, "s.csv: cannot be written"),
        (["no.png", "refs/a.png", "--encoder", "scene-clip"], 1, "no.png: expected an image file"),
    ],
)
def test_score_refuses_in_one_sentence(arguments, code, message, scenes, capsys):
    before = sorted(scenes.rglob("*"))
    assert cli.main(["score", *arguments]) == code
    output, error = capsys.readouterr()
    assert output == ""
    assert message in error
    assert error.count("\n") == 1
    assert sorted(scenes.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "x", "3-1", "1,,2", "-2"])
def test_layers_are_numbers_and_ranges(text, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["score", "a.png", "b.png", f"--layers={text}"])
    assert caught.value.code == 2
    assert f"expected numbers and ranges like 1,3,5-8, got {text!r}" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error():
    command = [sys.executable, "-m", "mlclipsim", "metrics"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_missing_packages_are_named(monkeypatch, capsys):
    from mlclipsim import listing

    def needs_piq():
        raise ModuleNotFoundError("No module named 'piq.functional'", name="piq.functional")

    monkeypatch.setattr(listing, "metrics", needs_piq)
    assert cli.main(["metrics"]) == 1
    assert capsys.readouterr().err == (
        "mlclipsim: this needs piq, which is not here; pip install 'mlclipsim[suite]'\n"
    )


@pytest.fixture
def photograph(tmp_path):
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()[60:124, 180:244]).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_distort_writes_what_matching_gives(photograph, tmp_path, capsys):
    from mlclipsim.distortions import family
    from mlclipsim.images import read_image
    from mlclipsim.pcmp.match import distort

    out = tmp_path / "out.png"
    command = ["distort", str(photograph), str(out), "--family", "glass_blur"]
    assert cli.main([*command, "--psnr", "26", "--seed", "5"]) == 0
    expected = distort(read_image(photograph), family("glass_blur"), psnr_db=26.0, seed=5)
    assert (read_image(out) == expected.image).all()
    assert f"strength {expected.strength:.4f}, reach of the displacements" in capsys.readouterr().out
    assert cli.main([*command, "--strength", "0"]) == 0
    assert not (read_image(out) == expected.image).all()


def test_distort_lists_every_family(capsys):
    from mlclipsim.distortions import FAMILIES

    assert cli.main(["distort", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["family", *FAMILIES]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "expected INPUT OUTPUT --family NAME"),
        (["in.png", "out.png", "--family", "fog"], 2, "expected --strength or --psnr"),
        (["in.png", "out.png", "--family", "fgo", "--psnr", "25"], 2, "did you mean 'fog'?"),
        (["in.png", "out.png", "--family", "fog", "--strength", "2"], 2, "expected --strength from 0 to 1"),
        (["in.png", "out.png", "--family", "fog", "--psnr", "nan"], 2, "expected --psnr between 0 and 100"),
        (["in.png", "out.jpg", "--family", "fog", "--psnr", "25"], 2, "expected an output ending in .png"),
        (["no.png", "out.png", "--family", "fog", "--psnr", "25"], 1, "no.png: expected an image file"),
        (["in.png", "out.png", "--family", "webp", "--psnr", "9"], 1, "webp does not attain 9 dB"),
    ],
)
def test_distort_refuses_in_one_sentence(arguments, code, message, photograph, monkeypatch, capsys):
    monkeypatch.chdir(photograph.parent)
    assert cli.main(["distort", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (photograph.parent / "out.png").exists()
