"""pyproject, lock and conda environment agree, and the lock names no index host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", requirement)[0]).lower()


def locked() -> dict[str, str]:
    return {
        name(package): version
        for package, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.MULTILINE)
    }


def test_lock_pins_every_direct_dependency_within_its_bounds():
    from packaging.requirements import Requirement

    pins = locked()
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *(item for group in extras.values() for item in group)]:
        requirement = Requirement(text)
        assert name(requirement.name) in pins, text
        assert requirement.specifier.contains(pins[name(requirement.name)]), text


def test_lock_has_hashes_and_no_host():
    assert "://" not in LOCK
    assert not re.search(r"^\s*--(index|extra-index|find-links)", LOCK, re.MULTILINE)
    blocks = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(blocks) > 50
    assert all("--hash=sha256:" in block for block in blocks)


def test_lock_never_puts_a_cpu_torch_beside_a_cuda_torchvision():
    assert "+cpu" not in LOCK
    assert {"torch", "torchvision"} <= set(locked())


def test_conda_environment_gives_the_same_python_and_nothing_that_the_lock_gives():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = {name(item): item for item in environment["dependencies"]}
    assert packages["python"].removeprefix("python").strip() == PROJECT["requires-python"]
    assert {"uv", "compilers"} <= set(packages)
    assert not set(packages) & set(locked())
