# ruff: noqa: INP001 -- a program, not part of a package
"""Audit of all locked packages against known vulnerabilities, with pip-audit.

Exit code 1 if a package has one. Where the vulnerability data cannot be reached, completely or for some packages, a
line that begins with ``SKIPPED`` says so, and the exit code is 0: a check must work offline.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).with_name("dev.txt")
"""The lock that contains all others."""
SECONDS = 120.0
"""Timeout of the look-up of all packages."""


def report(written: str, errors: str = "") -> tuple[int, list[str]]:
    """Return the exit code and the lines for pip-audit's JSON report, which is empty if it failed with errors."""
    if not written.strip():
        reason = errors.strip().splitlines()[-1:] or ["timeout"]
        return 0, [f"SKIPPED pip-audit: the vulnerability data cannot be reached ({reason[0][:200]})"]
    packages: list[dict[str, Any]] = json.loads(written)["dependencies"]
    vulnerable = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines = [*vulnerable, f"pip-audit: {len(packages) - len(skipped)} packages, {len(vulnerable)} vulnerabilities"]
    if skipped:
        shown = ", ".join(skipped[:3])
        lines.append(f"SKIPPED pip-audit: no data about {len(skipped)} of {len(packages)} packages ({shown}, …)")
    return int(bool(vulnerable)), lines


def main() -> int:
    """Audit the lock, print the result and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--requirement", str(LOCK)]
    try:
        ran = subprocess.run(  # noqa: S603 -- constant words
            [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "5"],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        code, lines = report(ran.stdout, ran.stderr)
    except subprocess.TimeoutExpired:
        code, lines = report("")
    print("\n".join(lines))  # noqa: T201 -- the output of the command
    return code


if __name__ == "__main__":
    sys.exit(main())
