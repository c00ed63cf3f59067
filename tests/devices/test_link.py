"""The pipe to an agent, against programs that aren't one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import psutil
import pytest

from edgekd.devices.link import PipeLink
from edgekd.errors import DeviceUnreachable


@pytest.fixture
def open_links() -> Iterator[list[PipeLink]]:
    links: list[PipeLink] = []
    yield links
    for link in links:
        link.close()


def started(program: str, links: list[PipeLink]) -> PipeLink:
    link = PipeLink([sys.executable, "-c", program])
    links.append(link)
    return link


def test_lines_come_one_by_one_however_they_are_cut(open_links: list[PipeLink]) -> None:
    program = (
        "import sys,time\nfor part in 'on','e\\ntwo\\nthr','ee\\n':\n sys.stdout.write(part)\n sys.stdout.flush()\n"
    )
    link = started(program + " time.sleep(0.02)", open_links)
    assert [link.receive(10, 100) for _ in range(3)] == [b"one", b"two", b"three"]


@pytest.mark.slow
def test_a_late_answer(open_links: list[PipeLink]) -> None:
    link = started("import time; time.sleep(3600)", open_links)
    with pytest.raises(DeviceUnreachable, match=r"did not answer within 0\.2 s"):
        link.receive(0.2, 100)
    assert psutil.pid_exists(link.pid)  # it was not its end that was waited for


def test_a_line_without_end(open_links: list[PipeLink]) -> None:
    link = started("import sys\nwhile True: sys.stdout.write('x' * 65536)", open_links)
    with pytest.raises(DeviceUnreachable, match="more than 100000 bytes"):
        link.receive(10, 100_000)


def test_the_end_is_put_into_words(open_links: list[PipeLink]) -> None:
    link = started("raise SystemExit(7)", open_links)
    with pytest.raises(DeviceUnreachable, match="ended with status 7"):
        link.receive(10, 100)


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(DeviceUnreachable, match="can't be started with /nowhere/python"):
        PipeLink(["/nowhere/python"])
