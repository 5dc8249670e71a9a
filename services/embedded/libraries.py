"""Does this machine have the libraries that the carried mongod was linked with? If not, a wheel has them too.

It was built where OpenSSL 3 and libcurl are at hand; a slim machine may lack libcurl, an older one OpenSSL 3. The wheel
of pycurl carries both, under names with a hash in them.
"""

import ctypes
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

NEEDED: Final = ("libcurl.so.4", "libssl.so.3", "libcrypto.so.3")


def environment(folder: Path) -> dict[str, str]:
    """The environment for mongod: ours, and a path to the wheel's libraries where the machine lacks one of them.

    Args:
        folder: a folder of ours, for links under the names that mongod asks for.
    """
    if sys.platform != "linux" or all(_loads(name) for name in NEEDED):
        return dict(os.environ)
    carried = _carried()
    if not carried:
        # mongod itself will say which library it misses.
        return dict(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        stem = name.partition(".so")[0]
        for library in carried:
            if library.name.startswith(f"{stem}-"):
                link = folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(library)
    paths = [str(folder), str(carried[0].parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _carried() -> list[Path]:
    """The libraries in pycurl's wheel; none where it isn't installed, or was built on this machine."""
    try:
        files = metadata.files("pycurl") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.parts[0] == "pycurl.libs"]
