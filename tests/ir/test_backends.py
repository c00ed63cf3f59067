"""Backends come by entry points: ours and another package's, and every list of runtimes is made from their records."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgekd import plugins
from edgekd.artefacts import Backend, Format
from edgekd.devices._protocol import MeasurePlan
from edgekd.devices.install import installable
from edgekd.devices.zipapp import agent_path, build_agent
from edgekd.errors import ConfigurationError, MissingError, UnknownName
from edgekd.ir import backends
from edgekd.ir.backends import BACKENDS, BackendSpec, RuntimeSpec, asked_of_agent, backend_hint, formats_of, runtimes
from edgekd.ir.numerics import Precision
from edgekd.ir.shipped_backends import LITERT_XNNPACK, OPENVINO_CPU
from edgekd.ir.support import precisions_of, unsupported
from edgekd.measure.benches.bench import run_bench
from edgekd.search.requirements import require_runtimes
from edgekd.targets.target import Target
from edgekd.targets.writing import installed_backends, write_target
from edgekd.testing.fakes.device import FakeDevice, fake_fingerprint

RECORD = """\
from edgekd.artefacts import Format
from edgekd.ir.backends import BackendSpec, Home, RuntimeSpec
from edgekd.ir.numerics import Precision

TINY = BackendSpec(
    runtime=RuntimeSpec(
        name="{runtime}", agent="{agent}",
        homes=(Home(module="tiny_runtime", distributions=("tiny-runtime",), requirements=("Tiny_Runtime>=2",)),),
    ),
    provider="cpu",
    formats=(Format.TFLITE,),
    precisions=(Precision.INT8,),
    example="answer = inputs[0]",
    example_heads="answers = inputs[0]",
)
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a package with a record on the path, as an installer would; every name it registers is looked up anew."""

    def forget() -> None:
        plugins._group.cache_clear()
        backends._loaded.cache_clear()
        backends.runtimes.cache_clear()
        agent_path.cache_clear()
        for name in ("tiny_record", "tiny_agent"):
            sys.modules.pop(name, None)

    def make(name: str = "tiny/cpu", runtime: str = "tiny", agent: str = "tiny_agent", text: str = RECORD) -> Path:
        info = tmp_path / "tiny-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[edgekd.backends]\n{name} = tiny_record:TINY\n")
        (tmp_path / "tiny_record.py").write_text(text.format(runtime=runtime, agent=agent))
        (tmp_path / "tiny_agent.py").write_text("PROVIDERS = ('cpu',)\n")
        monkeypatch.syspath_prepend(tmp_path)
        forget()
        return tmp_path

    yield make
    monkeypatch.undo()
    forget()


def test_ours_come_by_the_same_door_each_runtimes_default_first() -> None:
    assert list(BACKENDS) == ["litert/xnnpack", "litert/builtin", "onnxruntime/cpu", "openvino/cpu"]
    assert set(plugins.names("edgekd.backends")) == set(BACKENDS)
    assert all({"execute", "measure"} <= spec.can for spec in BACKENDS.values())
    assert list(installable()) == ["litert", "tflite-runtime", "onnxruntime", "openvino"]  # TensorFlow is not installed


def test_another_packages_runtime_is_in_every_list(install: Install) -> None:
    place = install()
    tiny = Backend.model_validate("tiny/cpu")
    assert list(BACKENDS)[-1] == "tiny/cpu"
    assert formats_of(tiny) == (Format.TFLITE,)
    assert precisions_of(tiny) == (Precision.INT8,)
    assert unsupported(Precision.FLOAT16, tiny)[0].remedy == "use litert, onnxruntime, openvino"
    assert backend_hint("tiny") == "did you mean `tiny/cpu`? "
    assert asked_of_agent()["tiny"] == {"providers": ["cpu"], "homes": [["tiny_runtime", ["tiny-runtime"]]]}
    assert installable()["tiny"][1].requirements == ("Tiny_Runtime>=2",)
    assert "tiny/cpu" not in installed_backends()  # its package is not here
    (place / "tiny_runtime.py").touch()
    assert "tiny/cpu" in installed_backends()
    assert "tiny/cpu" in write_target("here", place, "this-computer").read_text()


def test_a_new_target_has_no_backend_that_is_for_reference(install: Install) -> None:
    place = install(text=RECORD.replace("provider=", "reference=True, provider="))
    (place / "tiny_runtime.py").touch()
    assert "tiny/cpu" in BACKENDS
    assert "tiny/cpu" not in installed_backends()


def test_a_package_that_is_not_there_below_another_is_none_of_this_computer(install: Install) -> None:
    install(text=RECORD.replace('module="tiny_runtime"', 'module="nowhere.tiny_runtime"'))
    assert "tiny/cpu" in BACKENDS
    assert "tiny/cpu" not in installed_backends()


def test_one_that_only_simulates_needs_a_device_that_does(install: Install) -> None:
    install(text=RECORD.replace("provider=", "can=frozenset({{'simulate'}}), provider="))
    wanted = {"name": "mine", "device": "here", "backends": ["tiny/cpu"]}
    target = Target.model_validate(wanted)
    here = fake_fingerprint(runtimes={"tiny": "1.0"})
    with pytest.raises(MissingError, match="tiny/cpu, whose figures are estimates, and here runs models"):
        require_runtimes(target, here)
    require_runtimes(target, here.but(simulator="tiny 1.0"))


def test_ours_stay_a_formats_default(install: Install) -> None:
    install(name="alone/cpu", runtime="alone")  # before litert in the alphabet
    assert list(BACKENDS)[-1] == "alone/cpu"
    assert backend_hint("tflite") == ".tflite files run on `litert/xnnpack` "


def test_its_agent_module_is_sent_with_the_agent(install: Install) -> None:
    plain = build_agent()
    install()
    with zipfile.ZipFile(io.BytesIO(build_agent())) as archive:
        assert archive.read("edgekd/agent/runtimes/tiny.py") == b"PROVIDERS = ('cpu',)\n"
    assert build_agent() != plain


ANOTHER_PROVIDER = (
    RECORD.partition("TINY = ")[0]
    + """
from edgekd.ir.shipped_backends import OPENVINO_CPU

TINY = OPENVINO_CPU.but(provider="a-npu", agent="{agent}")
"""
)


def test_a_provider_of_our_runtime_brings_a_module_of_its_own(install: Install) -> None:
    install(name="openvino/a-npu", text=ANOTHER_PROVIDER)
    assert list(BACKENDS)[-1] == "openvino/a-npu"
    assert asked_of_agent()["openvino"]["providers"] == ["cpu", "a-npu"]
    with zipfile.ZipFile(io.BytesIO(build_agent())) as archive:
        assert archive.read("edgekd/agent/runtimes/openvino__a_npu.py") == b"PROVIDERS = ('cpu',)\n"
        assert b"OpenVino" in archive.read("edgekd/agent/runtimes/openvino.py")


def test_what_executes_has_a_module_that_drives_it() -> None:
    with pytest.raises(ValidationError, match="needs `agent`, its own or its runtime's"):
        OPENVINO_CPU.but(provider="a-npu")
    assert OPENVINO_CPU.but(provider="a-npu", agent="tiny_agent").driver == "openvino__a_npu"
    assert OPENVINO_CPU.driver == "openvino"


def test_an_agent_module_that_is_not_there_is_named(install: Install) -> None:
    install(agent="tiny_agent.deeper")
    with pytest.raises(MissingError, match=r"runtime `tiny` can't be sent to a device: tiny_agent\.deeper"):
        build_agent()


@pytest.mark.parametrize("name", ["null", "base"])
def test_it_takes_no_module_of_the_agent_away(install: Install, name: str) -> None:
    install(name=f"{name}/cpu", runtime=name)
    with pytest.raises(ConfigurationError, match=f"`{name}`, and the agent has one of that name"):
        build_agent()


def test_what_executes_needs_a_package() -> None:
    runtime, listed = RuntimeSpec(name="bare"), {"formats": (Format.ONNX,), "precisions": (Precision.INT8,)}
    with pytest.raises(ValidationError, match="a backend that executes needs `homes`"):
        BackendSpec.model_validate({"runtime": runtime, "provider": "cpu", **listed})
    assert BackendSpec.model_validate({"runtime": runtime, "provider": "cpu", "can": {"simulate"}, **listed})


@pytest.mark.parametrize(
    ("left_out", "said"), [("example", "needs `example` and"), ("example_heads", "needs `example`")]
)
def test_what_executes_has_lines_for_a_bundles_example(left_out: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LITERT_XNNPACK.but(**{left_out: ""})
    assert LITERT_XNNPACK.but(can={"simulate"}, example="", example_heads="").can == {"simulate"}
    with pytest.raises(ValidationError, match="can"):
        LITERT_XNNPACK.but(can=())


def test_what_is_never_timed_is_in_no_search_bench_or_prediction(install: Install, tmp_path: Path) -> None:
    install(text=RECORD.replace("provider=", "can=frozenset({{'execute'}}), provider="))
    tiny = Backend.model_validate("tiny/cpu")
    here = fake_fingerprint(
        runtimes={"tiny": "1.0", "litert": "2"}, providers={"tiny": ("cpu",), "litert": ("xnnpack",)}
    )
    with pytest.raises(MissingError, match="tiny/cpu, which answers samples and is never timed"):
        require_runtimes(Target.model_validate({"name": "mine", "device": "here", "backends": ["tiny/cpu"]}), here)
    device = FakeDevice(lambda job: 100.0, fingerprint=here)
    plan, model = MeasurePlan(processes=2), tmp_path / "model.tflite"
    model.write_bytes(b"\0\0\0\0TFL3")
    with pytest.raises(MissingError, match="never timed on a device: tiny/cpu"):
        run_bench([model], device, [tiny], None, plan)
    rows = run_bench([model], device, None, None, plan).rows
    assert [str(row.backend) for row in rows] == ["litert/xnnpack"]


def test_a_record_of_another_name_is_refused(install: Install) -> None:
    install(name="small/cpu")
    with pytest.raises(ConfigurationError, match=r"`small/cpu` of edgekd\.backends gives the record of `tiny/cpu`"):
        list(BACKENDS)


def test_what_is_no_record_is_refused(install: Install) -> None:
    install(text="TINY = 7")
    with pytest.raises(ConfigurationError, match="gives an object of type int"):
        list(BACKENDS)


def test_a_record_that_cannot_be_imported_names_its_package(install: Install) -> None:
    install(text="import no_such_module")
    with pytest.raises(MissingError, match=r"the backend `tiny/cpu` \(tiny_record:TINY\) can't be imported"):
        list(BACKENDS)


def test_one_runtime_has_one_description(install: Install) -> None:
    install(name="litert/cpu", runtime="litert")
    with pytest.raises(ConfigurationError, match="two packages describe a runtime `litert`"):
        runtimes()


def test_unknown_names_lead_to_known_ones() -> None:
    with pytest.raises(UnknownName, match="no backend `litert/gpu`"):
        formats_of(Backend.model_validate("litert/gpu"))


@pytest.mark.slow
def test_records_import_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys; from edgekd.ir.backends import BACKENDS; list(BACKENDS);"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'openvino', 'ai_edge_litert'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"
