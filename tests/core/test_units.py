from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgekd.units import Bandwidth, Duration, Energy, Frequency, Power, Quantity, Rate, Size, format_bytes, format_us

KINDS = [Bandwidth, Duration, Energy, Frequency, Power, Rate, Size]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "33 ms", 0.033),
        (Duration, "33ms", 0.033),
        (Duration, "150 us", 150e-6),
        (Duration, "1.5 h", 5400.0),
        (Size, "64 MiB", 64 * 2**20),
        (Size, "1 kB", 1000.0),
        (Rate, "30/s", 30.0),
        (Rate, "30 /min", 0.5),
        (Energy, "60 mJ", 0.06),
        (Power, "2 W", 2.0),
        (Frequency, "2.4 GHz", 2.4e9),
        (Bandwidth, "17 GB/s", 17e9),
    ],
)
def test_reads_what_people_write(kind: type[Quantity], text: str, value: float) -> None:
    assert float(kind.parse(text)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("written", [33, 33.0, "33", " 33 ", "1e3"])
def test_a_bare_number_is_refused_with_the_units_it_may_mean(written: object) -> None:
    with pytest.raises(ValueError, match=r"has no unit\. Write .* ms, .* us or .* s"):
        Duration.parse(written)


@pytest.mark.parametrize(
    "written", ["", "ms", "-3 ms", "1e400 s", "3 parsecs", "5/s", None, True, [], "inf s", "nan s"]
)
def test_anything_else_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Duration.parse(written)


@pytest.mark.parametrize("kind", KINDS)
@given(value=st.floats(min_value=0, max_value=1e15, allow_nan=False))
def test_exact_text_reads_back_as_the_same_number(kind: type[Quantity], value: float) -> None:
    quantity = kind(value)
    assert float(kind.parse(quantity.exact())) == value


def test_pydantic_reads_and_writes_quantities() -> None:
    adapter = TypeAdapter(Duration)
    assert adapter.dump_python(adapter.validate_python("33 ms"), mode="json") == "33 ms"
    with pytest.raises(ValidationError, match="has no unit"):
        adapter.validate_python(33)


@pytest.mark.parametrize(
    ("us", "text"), [(61.0, "61 us"), (0.5, "0.5 us"), (272.4, "272 us"), (3210.0, "3.21 ms"), (1.2e6, "1.2 s")]
)
def test_latencies_as_people_read_them(us: float, text: str) -> None:
    assert format_us(us) == text


@pytest.mark.parametrize(("size", "text"), [(18739, "18.3 KiB"), (4 * 2**20, "4 MiB"), (100, "100 B"), (0, "0 B")])
def test_sizes_as_people_read_them(size: float, text: str) -> None:
    assert format_bytes(size) == text
