"""Builds the C core once as a static library, then one extension a concept on top of it.

``LOGSTORE_DEBUG=1`` builds everything with AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import platform
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
DEBUG = os.environ.get("LOGSTORE_DEBUG") == "1"
MSVC = sys.platform == "win32"

COMPILE_ARGS = ["/std:c11", "/O2"] if MSVC else ["-std=c11", "-O3", "-fno-strict-aliasing", "-fvisibility=hidden"]
IS_GCC_ON_X86 = (
    sys.platform == "linux"
    and platform.machine() in ("x86_64", "AMD64")
    and "clang" not in os.environ.get("CC", "")
)
if IS_GCC_ON_X86:
    # Keeps jumps off 32-byte boundaries, where some Intel cores decode them slowly.
    COMPILE_ARGS += ["-Wa,-mbranches-within-32B-boundaries"]
# The glue around the core gains nothing from -O3 or debug information, and compiles a third faster without.
EXTENSION_ARGS = [] if MSVC or DEBUG else ["-O2", "-g0"]
LINK_ARGS: list[str] = []
if DEBUG:
    SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    COMPILE_ARGS += ["-O1", "-g", *SANITIZERS]
    LINK_ARGS += SANITIZERS

# Shared by every extension; the only place where directives stand.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
    "embedsignature.format": "python",
    "binding": True,
    "always_allow_keywords": True,
    "freethreading_compatible": False,
}

EXTENSIONS = sorted(path.relative_to(HERE).with_suffix("") for path in (HERE / "logstore/_native").glob("*.pyx"))
HEADERS = [str(path.relative_to(HERE)) for path in sorted((HERE / "csrc").rglob("*.h")) if "build" not in path.parts]
SOURCES = [str(path.relative_to(HERE)) for path in sorted((HERE / "csrc/src").glob("*.c"))]


class BuildLibraryFirst(build_ext):
    """An editable install asks for build_ext alone; the static library has to exist before it."""

    def run(self) -> None:
        self.run_command("build_clib")
        clib = self.get_finalized_command("build_clib")
        for extension in self.extensions:
            extension.library_dirs.append(clib.build_clib)
        super().run()


class BuildLibrary(build_clib):
    """The C core; position-independent, since extensions link it."""

    def build_libraries(self, libraries: list) -> None:
        if not MSVC:
            for flag in ("-fPIC",):
                if flag not in self.compiler.compiler_so:
                    self.compiler.compiler_so.append(flag)
        super().build_libraries(libraries)


setup(
    # `logstore demo` runs the example that people copy; there is one copy of it.
    packages=[*find_packages(include=["logstore*"]), "logstore.demo"],
    package_dir={"logstore.demo": "examples/orders"},
    libraries=[
        (
            "logstore",
            {
                "sources": SOURCES,
                "include_dirs": ["csrc/include", "csrc/src"],
                "cflags": COMPILE_ARGS,
                "obj_deps": {"": HEADERS},
            },
        )
    ],
    ext_modules=cythonize(
        [
            Extension(
                ".".join(path.parts),
                [f"{path}.pyx"],
                include_dirs=["csrc/include"],
                libraries=["logstore"],
                extra_compile_args=[*COMPILE_ARGS, *EXTENSION_ARGS],
                extra_link_args=LINK_ARGS,
                depends=[*HEADERS, *SOURCES],  # linked in, so a change in the library makes the extension anew
            )
            for path in EXTENSIONS
        ],
        compiler_directives=DIRECTIVES,
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
    ),
    options={"build_ext": {"parallel": os.cpu_count()}},
    cmdclass={"build_ext": BuildLibraryFirst, "build_clib": BuildLibrary},
)
