"""What nobody's file or name may do: run code, reach a shell, or read where it was not sent."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import mlclipsim

PACKAGE = Path(mlclipsim.__file__).parent
ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every call in a file by its dotted name, as written."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [(dotted(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


_TOLD = ("weights_only", "allow_pickle", "shell")


def unsafe(name: str, call: ast.Call) -> bool:
    given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg in _TOLD}
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name in ("np.load", "numpy.load"):
        return given.get("allow_pickle", "False") != "False"
    if name in ("yaml.load", "yaml.load_all"):  # spec's own loader extends the safe one
        return "_Loader" not in [ast.unparse(argument) for argument in call.args]
    if name.endswith(".read_pickle") or name.partition(".")[0] in ("pickle", "dill", "marshal"):
        return True
    if name in ("eval", "exec", "os.system", "os.popen", "joblib.load", "yaml.unsafe_load", "yaml.full_load"):
        return True
    return given.get("shell") == "True"


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell():
    assert len(SOURCES) > 100
    found = [f"{path}:{call.lineno}" for path in SOURCES for name, call in calls(path) if unsafe(name, call)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "pd.read_pickle(path)",
        "yaml.load(text, yaml.Loader)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_the_scan_finds_what_it_looks_for(code):
    call = ast.parse(code).body[0].value
    assert unsafe(dotted(call.func), call)


# What cannot hold a shell's characters: numbers that Snakemake puts in.
_NUMBERS = {"threads", "resources.gpu"}


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_value_in_a_shell_command_is_quoted(path):
    """In the commands of the rules, which are literals, ``{name:q}`` is Snakemake's quoting."""
    text = path.read_text()
    # a field in a literal without a prefix; f-strings and wildcards make paths, not commands
    commands = re.findall(r"^ +shell:\n((?: {8,}.*\n|\n)+)", text, re.MULTILINE)
    assert len(commands) == len(re.findall(r"^ +shell:", text, re.MULTILINE))
    fields = [field for command in commands for field in re.findall(r"\{([^{}]+)\}", command)]
    assert [f for f in fields if not f.endswith(":q") and f not in _NUMBERS] == []
    assert not [command for command in commands if re.search(r"\bf[\"']", command)]


def test_the_rules_were_read():
    assert len(RULES) > 10
