"""A run as pictures: everyone beside logstore, targets, growth. SVGs with their text as text, so that they stay small."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["draw"]

COLOURS = {"logstore": "#1b7f4d", "peer": "#4a6fa5", "limit": "#9a9a9a"}
MISSED = "#c0504d"
GROUPS = {
    "append": ("append-buffered", "append-appended", "append-many", "send"),
    "flushed": ("append-flushed-1", "append-flushed-100", "append-flushed-1000", "append-threads"),
    "read": ("iterate", "columns", "look-up-offset", "look-up-time"),
    "compression": ("compress-zstd", "compress-lz4", "decompress-zstd", "decompress-lz4"),
}
ROW_INCHES = 0.24
WIDTH_INCHES = 9.0

Work = dict[str, Any]


def draw(run: dict[str, Any], directory: Path) -> list[Path]:
    """Draw what the run measured, and give the files.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "logstore", "font.size": 8, "font.family": "sans-serif"}
    )
    directory.mkdir(parents=True, exist_ok=True)
    small = min(run["run"]["value_bytes"])
    works = {work["name"]: work for work in run["works"] if work["value_bytes"] == small and _measured(work)}
    groups = {group: [works[name] for name in names if name in works] for group, names in GROUPS.items()}
    pictures: list[tuple[str, Callable[[Path], bool]]] = [
        *((f"beside-{name}.svg", partial(_beside, group)) for name, group in groups.items()),
        ("targets.svg", lambda path: _targets(run["works"], path)),
        ("growth.svg", lambda path: _growth(works, path)),
    ]
    return [directory / name for name, picture in pictures if picture(directory / name)]


def _measured(work: Work) -> list[dict[str, Any]]:
    return [row for row in work["rows"] if "median" in row and "logstore_ratio" in row]


def _save(figure: Any, path: Path) -> bool:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    return True


def _beside(works: list[Work], path: Path) -> bool:
    """Bars of everyone's rate as multiples of logstore's first row, on a logarithmic axis, a panel a work."""
    import matplotlib.pyplot as plt

    if not works:
        return False
    heights = [len(_measured(work)) + 2 for work in works]
    figure, panels = plt.subplots(
        len(works),
        1,
        figsize=(WIDTH_INCHES, ROW_INCHES * sum(heights)),
        gridspec_kw={"height_ratios": heights, "hspace": 0.35},
        squeeze=False,
    )
    for work, panel in zip(works, panels[:, 0], strict=True):
        rows = _measured(work)
        rates = [1 / row["logstore_ratio"] for row in rows]
        lowest = 10 ** math.floor(math.log10(min(rates) / 1.5))
        for number, (row, rate) in enumerate(zip(rows, rates, strict=True)):
            panel.barh(number, rate - lowest, left=lowest, color=COLOURS[row["kind"]], height=0.72)
            panel.text(rate * 1.08, number, f"{rate:.2g} x", va="center", fontsize=7)
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.set_xlim(lowest, max(rates) * 2.5)
        panel.axvline(1, color=COLOURS["logstore"], linewidth=0.8)
        panel.set_yticks(range(len(rows)), [row["name"] for row in rows])
        panel.invert_yaxis()
        size = f", values of {work['value_bytes']:,} bytes" if work["each_size"] else ""
        panel.set_title(f"{work['name']}: {work['title']}{size}", loc="left", fontsize=8, fontweight="bold")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("rate, as a multiple of logstore's (green: logstore, blue: peers, grey: limits)")
    return _save(figure, path)


def _targets(works: list[Work], path: Path) -> bool:
    """A bar a target: how much of it was reached."""
    import matplotlib.pyplot as plt

    found = [
        (f"{work['name']}{_size(work)}: {target['contestant']}", target["met"])
        for work in works
        for target in work["targets"]
        if target["met"] is not None
    ]
    if not found:
        return False
    figure, panel = plt.subplots(figsize=(WIDTH_INCHES, ROW_INCHES * (len(found) + 2)))
    for number, (_name, met) in enumerate(found):
        panel.barh(number, min(met, 2), color=COLOURS["logstore"] if met >= 1 else MISSED, height=0.72)
        panel.text(min(met, 2) + 0.02, number, f"{met:.0%}", va="center", fontsize=7)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xlim(0, 2.2)
    panel.set_yticks(range(len(found)), [name for name, _met in found])
    panel.set_xticks([0, 0.5, 1, 1.5, 2], ["0", "50 %", "100 %", "150 %", "200 % and more"])
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title("How much of each target was reached", loc="left", fontsize=8, fontweight="bold")
    return _save(figure, path)


def _size(work: Work) -> str:
    return f", {work['value_bytes']:,} B" if work["each_size"] else ""


def _growth(works: dict[str, Work], path: Path) -> bool:
    """Time of one operation over the number of partitions and the size of the log."""
    import matplotlib.pyplot as plt

    panels_wanted = [
        ("partitions", {"append": works.get("grow-partitions-time")}),
        ("log, MiB", {"append": works.get("grow-log-append"), "look-up": works.get("grow-log-look-up")}),
    ]
    wanted = [(label, {name: work for name, work in lines.items() if work}) for label, lines in panels_wanted]
    wanted = [(label, lines) for label, lines in wanted if lines]
    if not wanted:
        return False
    figure, panels = plt.subplots(1, len(wanted), figsize=(WIDTH_INCHES, 2.6), squeeze=False)
    for (label, lines), panel in zip(wanted, panels[0], strict=True):
        for (name, work), marker in zip(lines.items(), "os", strict=False):
            rows = _measured(work)
            sizes = [_number(row["name"]) for row in rows]
            panel.plot(sizes, [1e6 / row["median"] for row in rows], marker=marker, label=name, linewidth=1)
        panel.set_xscale("log")
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.set_xlabel(label)
        panel.set_ylabel("µs each")
        panel.legend(frameon=False)
        panel.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _number(name: str) -> int:
    return int("".join(character for character in name if character.isdigit()))
