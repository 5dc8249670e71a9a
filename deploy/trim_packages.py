"""Makes the packages of the image smaller: ``python trim_packages.py <site-packages>``, at the build of the image.

- Removes modules that Nest never imports (``UNUSED``), type stubs and sources of extension modules.
- Cuts debug information and symbol tables off extension modules, which some wheels contain.
- Compiles exactly the modules that Nest's commands import: the image's file system is read-only, so Python could not
  keep the compiled form, and compiling all modules would double the size of the packages.
"""

# ruff: noqa: INP001 -- a script of the Dockerfile

from __future__ import annotations

import importlib
import pkgutil
import shutil
import struct
import sys
from pathlib import Path
from typing import Final

UNUSED: Final = (
    # Types of parameters, events and resources: Nest sends raw requests and parses JSON itself. The client imports v2,
    # and data has certificates.
    "stripe/[!dv]*/",
    "pygments/lexers/[!_]*.py",  # languages of highlighted source code, which `nest` does not print
    "faststream/confluent/",
    "faststream/mqtt/",
    "faststream/nats/",
    "faststream/rabbit/",
    "faststream/redis/",
    "**/*.c",
    "**/*.h",
    "**/*.pxd",
    "**/*.pxi",
    "**/*.pyi",
    "**/*.pyx",
)
"""Patterns below site-packages. Each matches something; otherwise the build fails, because the list is out of date."""
OTHER_PROGRAMS: Final = ("services.embedded", "services.reference", "services.stripe_double")
"""Parts of the project that the image does not run."""
ELF: Final = b"\x7fELF"
ELF_64_LITTLE: Final = (2, 1)
_LOAD: Final = 1
"""``PT_LOAD``: a segment that is mapped into memory."""


def remove_unused(packages: Path) -> None:
    """Remove the modules of ``UNUSED``.

    Raises:
        SystemExit: a pattern matches nothing.
    """
    for pattern in UNUSED:
        folders_only = pattern.endswith("/")
        found = [each for each in packages.glob(pattern.rstrip("/")) if each.is_dir() or not folders_only]
        if not found:
            raise SystemExit(f"trim_packages: nothing matches {pattern}: a package has changed, adjust UNUSED")
        for each in found:
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def loaded_bytes(library: bytes) -> bytes:
    """Return the part of a shared library that the dynamic linker maps, with a header that names no sections.

    Sections are for linkers and debuggers; loading needs the program headers alone (System V ABI, chapter 5, "Program
    Header"). Files other than 64-bit little-endian ELF are returned unchanged.
    """
    if library[:4] != ELF or tuple(library[4:6]) != ELF_64_LITTLE:
        return library
    offset, size, count = *struct.unpack_from("<Q", library, 32), *struct.unpack_from("<HH", library, 54)
    end = offset + size * count
    for n in range(count):
        kind, file_offset, file_size = (
            *struct.unpack_from("<I", library, offset + n * size),
            *struct.unpack_from("<Q", library, offset + n * size + 8),
            *struct.unpack_from("<Q", library, offset + n * size + 32),
        )
        if kind == _LOAD:
            end = max(end, file_offset + file_size)
    # e_shoff, and e_shentsize, e_shnum, e_shstrndx.
    header = library[:40] + bytes(8) + library[48:58] + bytes(6)
    return header + library[64:end]


def strip_libraries(packages: Path) -> None:
    """Cut what is not loaded off all extension modules."""
    for path in packages.rglob("*.so*"):
        library = path.read_bytes()
        if len(stripped := loaded_bytes(library)) < len(library):
            path.write_bytes(stripped)


def compile_imported() -> None:
    """Import all modules of Nest's commands, by which Python compiles these and all that they import.

    Stripe's client imports more when it is created.
    """
    for package in map(importlib.import_module, ("services", "shared")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(OTHER_PROGRAMS):
                importlib.import_module(module.name)
    importlib.import_module("stripe").StripeClient("sk_test_of_the_build")


def main() -> None:
    """Trim the packages below the folder in the first argument."""
    packages = Path(sys.argv[1])
    remove_unused(packages)
    strip_libraries(packages)
    compile_imported()


if __name__ == "__main__":
    main()
