"""What does `jgo.toml` resolve to today? `python -m services.embedded.lock_jars` writes `jgo.lock.toml`.

jgo's own lock writer is not used: it starts a Java to classify modules, and its file carries a date and no
sizes. The rows have the names that jgo gives them. No repository address is written.
"""

import hashlib
import tempfile
import tomllib
from pathlib import Path

from jgo.maven import Dependency as Resolved
from jgo.maven import MavenContext

from services.embedded.jars import LOCKED, WANTED


def main() -> None:
    """Resolves everything anew, which downloads everything once, and writes the lock."""
    coordinates: list[str] = tomllib.loads(WANTED.read_text())["dependencies"]["coordinates"]
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder), timeout=60)
        inputs, transitive = context.resolver.resolve([context.create_dependency(c) for c in coordinates])
        wanted = [d for d in [*inputs, *transitive] if d.scope not in {"test", "provided", "system"}]
        rows = "".join(_row(dependency) for dependency in wanted)
    LOCKED.write_text(f"# Written by `make lock` from jgo.toml.\n{rows}")


def _row(dependency: Resolved) -> str:
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
