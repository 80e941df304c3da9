"""What comes from outside the tree: found without import, stamped with its source, built by the same code.

The plug-in is the example of docs/extending.md, in tests/example.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from mlclipsim import plugins, spec
from mlclipsim.spec import ConfigError
from mlclipsim.usage import UsageError

EXAMPLE = Path(__file__).parent / "example"
PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
OURS = {"plugins": ["my_plugin"]}
(FOLD,) = spec.load(planning=True).config["folds"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a plug-in of one module, in the working directory of this test."""
    monkeypatch.chdir(tmp_path)

    def make(catalog: str, source: str = "def metric(reference, distorted):\n    ...\n", name: str = "mine"):
        (tmp_path / f"{name}.py").write_text(source)
        (tmp_path / f"{name}.yaml").write_text(catalog)
        return name

    return make


def problems(**overrides) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        spec.load(overrides, spec_root(), planning=True)
    return caught.value.problems


def spec_root() -> Path:
    return Path(__file__).parents[1]


def plan(**overrides) -> spec.Plan:
    return spec.load({**OURS, **overrides}, spec_root(), planning=True)


METRIC = (
    "metrics: {%s: {library: plugin, function: '%s', variant: x, higher_is_better: true, class: fidelity, "
    "needs: nothing}}"
)


def test_planning_imports_no_plugin():
    code = (
        "import sys; from mlclipsim import spec; spec.load({'plugins': ['my_plugin']}, planning=True); "
        "print({'my_plugin', 'torch', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    path = {"PYTHONPATH": f"{EXAMPLE}:{spec_root() / 'src'}", "PATH": ""}
    assert subprocess.check_output(command, text=True, cwd=spec_root(), env=path).strip() == "set()"


def test_without_plugins_nothing_is_added():
    assert spec.load(planning=True).catalogs["distortions"] == {}
    assert "plugins" not in spec.load(planning=True).slice("pcmp_images")["pcmp"]


def test_a_plugin_that_is_only_listed_moves_no_result():
    before, after = spec.load(planning=True), plan()
    for step in ("references", "pcmp_images", "votes", "baselines", "channel_similarities"):
        assert before.shared(step, "x") == after.shared(step, "x")


@pytest.mark.parametrize(
    ("overrides", "moved"),
    [
        ({"metrics": ["psnr", "gradient_error"]}, {"baselines"}),
        ({"pcmp": {"families": ["jpeg", "vignette"], "families_per_block": 2}}, {"pcmp_images", "baselines"}),
        ({"folds": [FOLD | {"seen": [*FOLD["seen"], "patchwork"]}]}, {"predictions", "votes"}),
    ],
)
def test_the_source_is_part_of_what_steps_depend_on(write, tmp_path, overrides, moved):
    copied(tmp_path)

    def paths() -> dict[str, str]:
        changed = plan(plugins=["my_copy"], **overrides)
        return {step: changed.shared(step, "x") for step in ("references", *STEPS)}

    before = paths()
    with (tmp_path / "my_copy" / "machines.py").open("a") as file:
        file.write("# another word\n")
    after = paths()
    assert moved <= {step for step in before if before[step] != after[step]}
    assert before["references"] == after["references"]
    (tmp_path / "my_copy" / "__pycache__").mkdir()
    (tmp_path / "my_copy" / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    assert paths() == after


STEPS = ("pcmp_images", "predictions", "votes", "baselines")


def copied(folder: Path) -> None:
    """The example as `my_copy`, so that no imported `my_plugin` stands in its way."""
    target = folder / "my_copy"
    target.mkdir()
    for path in (EXAMPLE / "my_plugin").iterdir():
        if path.is_file():
            (target / path.name).write_text(path.read_text().replace("my_plugin", "my_copy"))


def test_a_step_refuses_code_that_changed_since_it_was_planned(write, tmp_path):
    copied(tmp_path)
    slice_ = plan(plugins=["my_copy"], metrics=["gradient_error"]).slice("baselines")
    plugins.verify(slice_)
    (tmp_path / "my_copy" / "metrics.py").write_text("")
    with pytest.raises(UsageError, match=r"'my_copy\.metrics' has changed since this run was planned"):
        plugins.verify(json.loads(json.dumps(slice_)))


@pytest.mark.parametrize(
    ("catalog", "problem"),
    [
        (
            METRIC % ("psnr", "mine:metric"),
            r"metrics: 'psnr' is the name of one in catalog/metrics.yaml; take",
        ),
        ("distortions: {jpeg: {family: 'mine:JPEG'}}", "'jpeg' is the name of one in the package"),
        ("metric: {}", "kind 'metric' is unknown; did you mean 'metrics'?"),
        (METRIC % ("sharp", "elsewhere:metric"), "'sharp': there is no module 'elsewhere' in"),
        (METRIC % ("sharp", "mine; rm -rf /"), "`sharp.function`: 'mine; rm -rf /' does not match"),
        ("metrics: {sharp: {library: plugin}}", "'function' is a required property"),
        ("- metrics", "holds a list, expected keys and values"),
    ],
)
def test_wrong_catalogs_are_one_sentence(write, catalog, problem):
    (found,) = [text for text in problems(plugins=[write(catalog)]) if re.search(problem, text)] or [""]
    assert found, problems(plugins=["mine"])


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("nowhere", "`plugins`: there is no module 'nowhere' in"),
        ("json.nothing", "`plugins`: there is no module 'json.nothing' in"),
        ("sys", "module 'sys' has no Python source"),
        ("textwrap", "plug-in 'textwrap' has no catalog"),
        ("$(touch x)", "is '$(touch x)', expected the name of a Python module"),
    ],
)
def test_modules_that_cannot_be_plugins_are_named(module, problem):
    assert any(problem in text for text in problems(plugins=[module]))


def test_two_plugins_do_not_bring_one_name(write):
    first = write(METRIC % ("sharp", "mine:metric"))
    second = write(METRIC % ("sharp", "yours:metric"), name="yours")
    (found,) = problems(plugins=[first, second])
    assert "yours.yaml: metrics: 'sharp' is the name of one in" in found
    assert "mine.yaml: metrics; take another" in found


def test_names_of_plugins_are_offered(write):
    (found,) = problems(plugins=["my_plugin"], metrics=["gradient_eror"])
    assert "did you mean 'gradient_error'?" in found


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ("nowhere:metric", "there is no module 'nowhere'"),
        ("mine:nothing", "module mine has no 'nothing'"),
        ("mine", "expected code as module:name, got 'mine'"),
        ("broken:metric", r"broken cannot be imported \(ModuleNotFoundError: No module named 'of_nobody'\)"),
    ],
)
def test_code_that_is_not_there_is_one_sentence(write, named, problem):
    write("")
    write("", "import of_nobody", "broken")
    with pytest.raises(UsageError, match=problem):
        plugins.load(named)


# Each kind, by the code that builds it.


def images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_a_metric_is_built_and_told_by_its_variant():
    import torch

    from mlclipsim import baselines

    entry = plan(metrics=["gradient_error"]).slice("baselines")["metrics"]["gradient_error"]
    assert baselines.lacks(entry) is None
    metric, variant = baselines.build("gradient_error", entry, 64)
    reference = torch.zeros(2, 3, 4, 4)
    distorted = reference.clone()
    distorted[1, :, :, 2:] = 0.5  # an edge: in each row one of three differences is .5
    assert variant == "l1"
    torch.testing.assert_close(metric(distorted, reference), torch.tensor([0.0, 0.5 / 3]))


def test_a_family_is_drawn_to_a_level():
    from mlclipsim.distortions import families
    from mlclipsim.pcmp import match

    outside = plan(pcmp={"families": ["jpeg", "vignette"]}).slice("pcmp_images")["pcmp"]["plugins"]
    known = families(["jpeg", "vignette"], outside)
    assert match.distort(images(), known["vignette"], psnr_db=22.0).psnr_db == pytest.approx(22, abs=0.05)
    with pytest.raises(ValueError, match="expected the name 'shade' that its catalog gives, got 'vignette'"):
        families(["shade"], {"shade": outside["vignette"]})
    with pytest.raises(TypeError, match=r"expected a mlclipsim\.distortions\.Family, got function"):
        families(["vignette"], {"vignette": {"family": "my_plugin.distortions:_darkened"}})


def test_a_machine_votes():
    import torch

    from mlclipsim import machines

    folds = [FOLD | {"seen": [*FOLD["seen"], "patchwork"]}]
    entry = plan(folds=folds).slice("predictions")["voters"]["patchwork"]
    machine = machines.load("patchwork", entry)
    logits = machine.predict(torch.rand(2, 3, 80, 64))
    assert (logits.shape, machine.task) == ((2, 10), "classification")


def test_an_encoder_has_its_untrained_control(write):
    import torch

    from mlclipsim import similarities

    with_encoder = plan(encoder="scene-clip-shallow")
    names = ("scene-clip-shallow", "scene-clip-shallow-untrained")
    assert (with_encoder.run, with_encoder.untrained) == names
    assert spec.load({**OURS, "encoder": names[1]}, planning=True).untrained == names[1]
    x = torch.rand(1, 3, 64, 64)
    trained, untrained = (
        similarities.load_entry(name, with_encoder.entry("encoders", name)) for name in names
    )
    whole = similarities.load_entry("scene-clip", with_encoder.entry("encoders", "scene-clip"))
    assert trained.n_layers == untrained.n_layers == whole.n_layers - 2
    torch.testing.assert_close(trained(x)[0][-1], whole(x)[0][-3])
    assert not torch.allclose(trained(x)[1], untrained(x)[1])
    write("", "def make(seed):\n    return seed\n", "tower")
    with pytest.raises(
        TypeError, match=r"expected tower:make to return a mlclipsim.encoders.Encoder, got int"
    ):
        similarities.load_entry("x", {"source": "plugin", "model": "tower:make", "seed": 3})


def test_a_data_set_is_read_and_checked(tmp_path, monkeypatch, write):
    from mlclipsim.artifacts import read_table
    from mlclipsim.datasets import check, human_images
    from mlclipsim.images import write_png

    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    folder = tmp_path / "data" / "sketches"
    folder.mkdir(parents=True)
    rows = [{"file": f"{n}.png", "original": "whole.png", "kind": "smudge", "mos": n} for n in (1, 2)]
    (folder / "ratings.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number, name in enumerate(("whole.png", "1.png", "2.png")):
        write_png(folder / name, images(number))
    with_set = plan(human={"datasets": ["sketches"]})
    spec_of = with_set.slice("human_images", dataset="sketches")
    assert check.check("sketches", spec_of["dataset"]["entry"]) == []
    outputs = {name: tmp_path / f"{name}.parquet" for name in TABLES}
    human_images.build(spec_of, {}, outputs)
    ratings = read_table(outputs["ratings"], "ratings")
    assert dict(zip(ratings["image_id"], ratings["rating"], strict=True)) == {"1.png": 1.0, "2.png": 2.0}
    (folder / "2.png").unlink()
    assert "2.png is not there" in check.check("sketches", spec_of["dataset"]["entry"])[0]
    write("", "def read(entry):\n    return []\n", "reader")
    with pytest.raises(
        TypeError, match=r"reader:read: expected mlclipsim.datasets.opinions.Opinions, got list"
    ):
        human_images.load("x", {"reader": "plugin", "function": "reader:read"})


TABLES = ("references", "images", "ratings", "comparisons")


# The page.


def test_the_page_shows_the_example_as_it_is():
    """Every file in full, the catalog section by section."""
    text = PAGE.read_text(encoding="utf-8")
    shown: dict[str, str] = {}
    for name, block in re.findall(r'^```\w+ title="my_plugin/([\w.]+)"\n(.*?)^```', text, re.DOTALL | re.M):
        shown[name] = f"{shown[name]}\n{block}" if name in shown else block
    files = {path.name: path.read_text(encoding="utf-8") for path in (EXAMPLE / "my_plugin").glob("*.*")}
    assert shown == files


def test_the_settings_on_the_page_can_be_planned():
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)
    (chosen, codec) = (spec.load(yaml.safe_load(block), planning=True) for block in blocks)
    assert set(chosen.slice("baselines")["metrics"]) == {"psnr", "ssim", "gradient_error"}
    assert codec.slice("rate_task")["codecs"]["jpeg-dense"]["qualities"][-1] == 40
