"""Resolution of `jgo.toml`: `python -m services.embedded.lock_jars` writes `jgo.lock.toml`.

jgo's own lock writer is not used: it starts Java to classify modules, and its file has a date and no sizes. The rows
use jgo's names. They contain no repository address.
"""

import hashlib
import tempfile
import tomllib
from pathlib import Path

from jgo.maven import Dependency, MavenContext

from services.embedded.jars import LOCKED, WANTED


def main() -> None:
    """Resolve and download everything, and write the lock."""
    coordinates: list[str] = tomllib.loads(WANTED.read_text())["dependencies"]["coordinates"]
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), timeout=60)
        inputs, transitive = context.resolver.resolve([context.create_dependency(each) for each in coordinates])
        wanted = [each for each in [*inputs, *transitive] if each.scope not in {"test", "provided", "system"}]
        rows = "".join(_row(dependency) for dependency in wanted)
    LOCKED.write_text(f"# Written by `make lock` from jgo.toml.\n{rows}")


def _row(dependency: Dependency) -> str:
    artifact = dependency.artifact
    content = Path(artifact.resolve()).read_bytes()
    return (
        "\n[[dependencies]]\n"
        f'groupId = "{artifact.groupId}"\n'
        f'artifactId = "{artifact.artifactId}"\n'
        f'version = "{artifact.version}"\n'
        f"size = {len(content)}\n"
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    )


if __name__ == "__main__":
    main()
