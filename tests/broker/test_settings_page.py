"""The page of settings is the code's list."""

import re
from pathlib import Path

from logstore.broker.config import BROKER_SETTINGS
from logstore.storage.config import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "settings.md"


def test_the_page_lists_every_setting_with_default_and_meaning():
    rows = re.findall(r"^\| `([a-z0-9.]+)` \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    expected = [
        (
            setting.name,
            "none" if setting.default is None else "2^63 - 1" if setting.default == 2**63 - 1 else str(setting.default),
            setting.meaning,
        )
        for setting in (*SETTINGS.values(), *BROKER_SETTINGS.values())
    ]
    assert rows == expected
