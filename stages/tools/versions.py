"""Bring the versions in versions.yaml up to requirements.lock: `make lock` runs it."""

import re
from pathlib import Path

import yaml


def locked_versions(lock: str) -> dict[str, str]:
    """name -> version of each `name==version` line."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;+]+)", lock, flags=re.MULTILINE))


def updated(text: str, versions: dict[str, str]) -> str:
    """versions.yaml with each name's version from the lock; comments and names stay."""
    for name in yaml.safe_load(text):
        text = re.sub(rf'(?m)^{re.escape(name)}: ".*"$', f'{name}: "{versions[name]}"', text)
    return text


def main() -> None:
    """Rewrite versions.yaml."""
    path = Path("versions.yaml")
    text = updated(
        path.read_text(encoding="utf-8"), locked_versions(Path("requirements.lock").read_text(encoding="utf-8"))
    )
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
