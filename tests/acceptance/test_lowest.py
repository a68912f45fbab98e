"""The oldest versions that are tested are the oldest that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def bounds(lines: Iterable[str], operator: str, python: str) -> dict[str, str]:
    """The highest version given with `operator` for each package under `python`."""
    found: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        for specifier in requirement.specifier:
            assert specifier.operator == operator, f"{requirement}: expected {operator}"
            found[requirement.name] = max(
                found.get(requirement.name, specifier.version), specifier.version, key=release
            )
    return found


def release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def test_the_lower_bounds_are_the_versions_of_the_lowest_run() -> None:
    """For every supported Python, tests/lowest.txt pins each core package at its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = (ROOT / "tests" / "lowest.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    for python in PYTHONS:
        assert bounds(project["dependencies"], ">=", python) == bounds(pins, "==", python)
