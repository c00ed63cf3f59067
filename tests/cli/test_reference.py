from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


@pytest.mark.skipif(not PAGE.exists(), reason="an installed copy has no docs")
def test_the_page_on_the_command_line_is_what_the_program_says() -> None:
    assert PAGE.read_text() == reference(), "stale: run `make docs`"
