"""The vendors' programs' own words: taken from published logs of both, and read as they stand or not at all."""

from __future__ import annotations

import pytest

from edgekd.devices.tool_output import NotUnderstood, read_benchmark_model, read_perf_test

# benchmark_model's form since 2024, as its users' logs have it (an SSD MobileNet v2 on a board, without XNNPACK)
BENCHMARK_MODEL = """\
INFO: Loaded model ssd_mobilenet_v2_coco.tflite
INFO: The input model file size (MB): 67.3128
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 \
median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, \
Inference (avg): 1.24027e+06
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
"""
OLD = """\
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
"""
PERF_TEST = """\
Session creation time cost: 0.512 s
First inference time cost: 12 ms
Total inference time cost: 5.88053 s
Total inference requests: 101
Average inference time cost total: 5.88053 ms
"""
TIMES = "".join(f"net,{0.005 + number * 1e-5:g},123456789,98,{number}\n" for number in range(101))


def test_benchmark_model() -> None:
    sample = read_benchmark_model(BENCHMARK_MODEL, 3.0)
    assert (sample.calls, sample.first_us, sample.load_ms, sample.started_at_s) == (50, 1357602.0, 5.579, 3.0)
    assert (sample.min_us, sample.p5_us, sample.p50_us, sample.p95_us) == (1238588, 1238753, 1239807, 1247415)
    assert sample.mean_us == 1.24027e6
    assert sample.p99_us is sample.memory_model_bytes is sample.runtime_us is None
    assert sample.round_p5_us == ()


def test_an_older_one_reports_too_little() -> None:
    with pytest.raises(NotUnderstood, match="tells no quantiles"):
        read_benchmark_model(OLD, 0.0)


@pytest.mark.parametrize(
    "said",
    [
        "",
        BENCHMARK_MODEL.split("INFO: count=50")[0],
        BENCHMARK_MODEL.replace("Inference timings", "Timings"),
        BENCHMARK_MODEL.replace("p5=1238753", "p5=nan"),
        BENCHMARK_MODEL.replace("p5=1238753", "p5=9238753"),
        BENCHMARK_MODEL.replace("count=50", "count=0"),
        BENCHMARK_MODEL.replace("avg=1.24027e+06", "avg=1.24027e+06.5"),
        BENCHMARK_MODEL.replace("p5=1238753", "p5=1..5"),
        BENCHMARK_MODEL.replace("count=50", f"count={'5' * 5_000}"),
        BENCHMARK_MODEL.replace("p5=1238753", f"p5={'1' * 5_000}"),
        BENCHMARK_MODEL.replace("First inference: 1357602", "First inference: 1e999"),
        BENCHMARK_MODEL.replace("Init: 5579", "Init: 1e999"),
    ],
)
def test_what_is_not_whole_is_no_time(said: str) -> None:
    with pytest.raises(NotUnderstood):
        read_benchmark_model(said, 0.0)


def test_perf_test() -> None:
    sample = read_perf_test(PERF_TEST, TIMES, 1.0)
    assert (sample.calls, sample.first_us, sample.load_ms) == (101, None, 512.0)
    assert sample.min_us == pytest.approx(5000)
    assert sample.p5_us == pytest.approx(5050)
    assert sample.p50_us == pytest.approx(5500)
    assert sample.p95_us == pytest.approx(5950)
    assert sample.p99_us == pytest.approx(5990)


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (PERF_TEST, ""),
        ("", TIMES),
        (PERF_TEST, TIMES.replace(",98,7\n", ",98,8\n")),
        (PERF_TEST, "\n".join(TIMES.splitlines()[1:])),
        (PERF_TEST, "\n".join(TIMES.splitlines()[:-1])),
        (PERF_TEST, TIMES[:-9]),
        (PERF_TEST, TIMES.replace("0.00501,", "0..00501,")),
        (PERF_TEST, TIMES.replace("net,0.005,", "net,0,")),
        (PERF_TEST.replace("0.512 s", "fast"), TIMES),
        (PERF_TEST.replace("0.512 s", "1e999 s"), TIMES),
        (PERF_TEST.replace("101", "999999999999"), TIMES),
        (PERF_TEST.replace("101", "999999999"), TIMES),
        (PERF_TEST.replace("101", "1" * 5_000), TIMES),
        (PERF_TEST, TIMES.replace(",98,7\n", f",98,{'7' * 5_000}\n")),
    ],
)
def test_times_that_are_not_whole_are_none(said: str, rows: str) -> None:
    with pytest.raises(NotUnderstood):
        read_perf_test(said, rows, 0.0)
