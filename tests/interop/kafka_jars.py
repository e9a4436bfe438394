"""Apache Kafka's own jars, fetched once by Maven and kept in the user's cache folder.

Run as a program it fetches what is missing and prints the Java classpath. Exit status: 0 ready,
3 Java or Maven is not installed (the suite cannot run here), 4 fetching or compiling failed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
POM = HERE / "pom.xml"
JAVA_SOURCES = sorted((HERE / "java").glob("*.java"))
MINIMUM_JAVA = 17
FETCH_TIMEOUT_S = 180

EXIT_TOOLS_MISSING = 3
EXIT_FETCH_FAILED = 4


class KafkaUnavailable(Exception):
    """Kafka cannot run on this machine; the message says why and what to install."""

    exit_status = EXIT_TOOLS_MISSING


class FetchFailed(KafkaUnavailable):
    """Java and Maven are here, but the jars could not be fetched or the decoder not compiled."""

    exit_status = EXIT_FETCH_FAILED


def kafka_version() -> str:
    """Return the Kafka release the POM names."""
    match = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", POM.read_text())
    assert match, f"no kafka.version in {POM}"
    return match[1]


def check_tools() -> None:
    """Raise KafkaUnavailable unless a Java 17 JDK is here, and Maven or an already filled cache."""
    for tool, package in (("java", "a JDK"), ("javac", "a JDK (a JRE alone lacks javac)")):
        if shutil.which(tool) is None:
            raise KafkaUnavailable(f"{tool} is not on the PATH: install {package}, 17 or newer")
    shown = subprocess.run(["java", "-version"], capture_output=True, text=True, timeout=60).stderr
    match = re.search(r'version "(\d+)', shown)
    if match is None or int(match[1]) < MINIMUM_JAVA:
        said = shown.splitlines()[0] if shown else "nothing"
        raise KafkaUnavailable(f"Kafka needs Java {MINIMUM_JAVA} or newer; java -version says {said}")
    if not _jar_folder().is_dir() and shutil.which("mvn") is None:
        raise KafkaUnavailable("mvn is not on the PATH: install Maven (it fetches Kafka's jars once)")


def classpath() -> str:
    """Return the classpath of Kafka and of our two Java classes; fetch and compile on first use."""
    check_tools()
    jars = _jar_folder()
    if not jars.is_dir():
        _build_once(jars, _fetch_jars)
    classes = jars.parent / f"classes-{_digest(*JAVA_SOURCES, POM)}"
    if not classes.is_dir():
        _build_once(classes, lambda folder: _compile(folder, jars))
    return os.pathsep.join([*sorted(map(str, jars.glob("*.jar"))), str(classes)])


def java_command(main_class: str, *arguments: str, heap: str = "256m") -> list[str]:
    """Return the command line that runs one of Kafka's main classes."""
    return [
        "java",
        f"-Xmx{heap}",
        "-XX:TieredStopAtLevel=1",  # these processes live for seconds: skip the slow compiler
        "-XX:+UseSerialGC",
        "-Dstdout.encoding=UTF-8",
        "-Dfile.encoding=UTF-8",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.storage=info",
        "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
        "-cp",
        classpath(),
        main_class,
        *arguments,
    ]


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "logstore-interop"


def _digest(*paths: Path) -> str:
    joined = b"\0".join(path.read_bytes() for path in paths)
    return hashlib.sha256(joined).hexdigest()[:12]


def _jar_folder() -> Path:
    return _cache_folder() / f"kafka-{kafka_version()}-{_digest(POM)}"


def _build_once(target: Path, build) -> None:
    # Built aside and renamed, so that a folder under its final name is always complete.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        built = Path(scratch) / "built"
        built.mkdir()
        build(built)
        try:
            built.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was first
                raise


def _fetch_jars(folder: Path) -> None:
    print(f"fetching Kafka {kafka_version()} with Maven (about 45 MB, once)", file=sys.stderr)
    command = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise FetchFailed(f"Maven did not fetch the jars within {FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise FetchFailed(f"Maven failed ({done.returncode}): {(done.stdout + done.stderr)[-1500:]}")
    if not list(folder.glob("kafka-tools-*.jar")):
        raise FetchFailed("Maven reported success but copied no kafka-tools jar")


def _compile(folder: Path, jars: Path) -> None:
    command = ["javac", "-nowarn", "-encoding", "UTF-8", "-d", str(folder), "-cp", f"{jars}/*"]
    done = subprocess.run([*command, *map(str, JAVA_SOURCES)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise FetchFailed(f"javac failed: {done.stderr[-1500:]}")


def main() -> int:
    """Fetch what is missing, print the classpath, say loudly why not."""
    try:
        print(classpath())
    except KafkaUnavailable as problem:
        print(f"INTEROP NOT RUN: {problem}", file=sys.stderr)
        return problem.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
