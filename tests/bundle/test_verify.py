from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd import api
from edgekd.artefacts import Artefact, Backend
from edgekd.bundle.preprocess import PREPROCESS
from edgekd.bundle.samples import SAMPLES, Samples
from edgekd.bundle.verify import Check, CheckAnswer, VerifyReport, _hashes, read_certificate, verify_bundle
from edgekd.bundle.write import _copy_model, _files
from edgekd.errors import ConfigurationError, MissingError
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.targets.verdict import Answer
from edgekd.testing.fakes.device import FakeDevice, Noise, fake_fingerprint
from tests.core.test_external_weights import saved

MakeDevice = Callable[..., FakeDevice]


def verified(bundle: Path, device: FakeDevice, tmp_path: Path) -> VerifyReport:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return verify_bundle(bundle, device.open(), scratch)


def check(report: VerifyReport, name: str) -> Check:
    return next(check for check in report.checks if check.name.startswith(name))


def test_a_good_bundle_holds(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 0
    assert [one.answer.value for one in report.checks] == ["holds"] * 5 + ["not repeated"]
    assert check(report, "files and hashes").found == "5 of 5"
    assert check(report, "parity").found.startswith("20 of 20 answers")
    assert "fresh processes" in check(report, "latency.p95 <= 200 us").found
    assert "not in the bundle" in check(report, "accuracy").found
    assert all(len(line) > 10 for line in report.lines())


@pytest.mark.parametrize("name", ["model.tflite", "samples.npz", "preprocess.json", "README.md", "example.py"])
def test_a_changed_byte_is_found(bundle: Path, make_device: MakeDevice, tmp_path: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    device = make_device()
    report = verified(bundle, device, tmp_path)
    assert report.exit_code == 7
    assert name in check(report, "files and hashes").found
    assert device.batches == 0, "a file that isn't the certified one was measured"


def test_a_missing_file_is_found(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    (bundle / "example.py").unlink()
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 7
    assert "4 of 5; differ: example.py" in check(report, "files and hashes").found


def test_a_file_outside_the_bundle_is_refused(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    certificate = read_certificate(bundle)
    (tmp_path / "elsewhere").write_bytes((bundle / "README.md").read_bytes())
    files = [file.but(name="../elsewhere") if file.name == "README.md" else file for file in certificate.files]
    write_json(bundle / CERTIFICATE, certificate.but(files=tuple(files)))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 7
    assert "../elsewhere" in check(report, "files and hashes").found


@pytest.mark.parametrize("name", ["model.tflite", "samples.npz", "preprocess.json"])
def test_what_is_run_must_have_a_hash(bundle: Path, make_device: MakeDevice, tmp_path: Path, name: str) -> None:
    certificate = read_certificate(bundle)
    write_json(bundle / CERTIFICATE, certificate.but(files=tuple(f for f in certificate.files if f.name != name)))
    device = make_device()
    report = verified(bundle, device, tmp_path)
    assert report.exit_code == 7
    assert f"without a hash: {name}" in check(report, "files and hashes").found
    assert device.batches == 0


def test_a_budget_that_is_only_reported_fails_nothing(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    certificate = read_certificate(bundle)
    budgets = {"latency": {"p95": "1 us", "report": True}, "energy": {"per_inference": "1 mJ", "report": True}}
    loose = type(certificate.target).model_validate({**certificate.target.model_dump(mode="json"), "budgets": budgets})
    write_json(bundle / CERTIFICATE, certificate.but(target=loose))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 0
    assert check(report, "latency.p95").answer.value == "reported only"
    assert check(report, "energy.per_inference").answer.value == "reported only"


def test_a_bundle_cannot_say_what_to_start(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\ntouch started\n")
    program.chmod(0o755)
    text = f"schema: edgekd.device/1\nconnection: {{kind: local, python: {program}}}\n"
    (tmp_path / "devices").mkdir()
    for name in ("devices/this-computer.yaml", "evil.yaml"):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    certificate = read_certificate(bundle)
    for device in ("this-computer", "./evil.yaml"):
        write_json(bundle / CERTIFICATE, certificate.but(target=certificate.target.but(device=device)))
        api.verify(bundle)
        assert not (tmp_path / "started").exists()


def test_another_machine_repeats_no_budget(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    device = make_device(fingerprint=fake_fingerprint(cpu="Another CPU"), latency_us=900.0)
    report = verified(bundle, device, tmp_path)
    assert report.exit_code == 0
    assert report.verdict is None
    assert device.batches == 0
    for name in ("latency.p95", "size.file", "memory.model"):
        assert check(report, name).answer.value == "not repeated"
        assert "cpu" in check(report, name).found
    assert check(report, "parity").answer.value == "holds"


@pytest.mark.parametrize(
    ("backend", "remedy"), [("litert/xnnpack", "pip install ai-edge-litert"), ("executorch/cpu", "take a later one")]
)
def test_without_its_runtime_nothing_is_said_to_differ(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, backend: str, remedy: str
) -> None:
    certificate = read_certificate(bundle)
    write_json(bundle / CERTIFICATE, certificate.but(backend=Backend.model_validate(backend)))
    device = make_device(fingerprint=fake_fingerprint(runtimes={"onnxruntime": "1.32.0"}))
    with pytest.raises(MissingError, match=f"there is no {backend.partition('/')[0]} on this device") as raised:
        verified(bundle, device, tmp_path)
    assert raised.value.exit_code == 4
    assert remedy in str(raised.value)
    assert device.batches == 0


def test_other_answers_fail_parity(bundle: Path, make_device: MakeDevice, samples: Samples, tmp_path: Path) -> None:
    report = verified(bundle, make_device(answers=-samples.answers), tmp_path)
    assert report.exit_code == 7
    assert check(report, "parity").answer.value == "fails"
    assert check(report, "parity").found.startswith("0 of 20")


@pytest.mark.parametrize(("alike", "answer"), [(None, "fails"), (19, "fails"), (17, "holds")])
def test_as_many_decoded_answers_as_were_certified_are_asked_for(
    bundle: Path, make_device: MakeDevice, samples: Samples, tmp_path: Path, alike: int | None, answer: str
) -> None:
    certificate = read_certificate(bundle)
    write_json(bundle / CERTIFICATE, certificate.but(parity=certificate.parity.but(alike=alike)))
    answers = samples.answers.copy()
    answers[:3] *= -1
    report = verified(bundle, make_device(answers=answers), tmp_path)
    assert check(report, "parity").found.startswith("17 of 20")
    assert check(report, "parity").answer.value == answer


def test_answers_alike_but_for_rounding_hold(
    bundle: Path, make_device: MakeDevice, samples: Samples, tmp_path: Path
) -> None:
    rounded = samples.answers + np.float32(1e-3)
    report = verified(bundle, make_device(answers=rounded), tmp_path)
    assert report.exit_code == 0
    assert "0.001" in check(report, "parity").found


def test_a_slower_machine_fails_its_budget(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    report = verified(bundle, make_device(latency_us=300.0), tmp_path)
    assert report.exit_code == 5
    assert check(report, "latency.p95").answer.value == "fails"
    assert check(report, "size.file").answer.value == "holds"


def test_a_noisy_machine_cannot_tell(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    report = verified(bundle, make_device(latency_us=160.0, noise=Noise(low=0.3)), tmp_path)
    assert report.exit_code == 6
    assert check(report, "latency.p95").answer.value == "unstable"


def test_a_certificate_that_certifies_nothing_is_no_success(
    bundle: Path, make_device: MakeDevice, tmp_path: Path
) -> None:
    certificate = read_certificate(bundle)
    first, *others = certificate.verdict.limits
    missed = certificate.verdict.but(limits=(first.but(answer=Answer.FAILS), *others))
    write_json(bundle / CERTIFICATE, certificate.but(verdict=missed))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 5
    assert check(report, "certificate").found.startswith(f"not certified: {first.limit} fails")


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a bundle"):
        read_certificate(tmp_path)


def test_weights_outside_an_onnx_file_come_along_and_need_a_hash(certificate: Certificate, tmp_path: Path) -> None:
    artefact = Artefact.of(saved(tmp_path / "made", "deep/w.bin"))
    draft = tmp_path / "draft"
    draft.mkdir()
    for name in (PREPROCESS, SAMPLES):
        (draft / name).touch()
    model = _copy_model(artefact, draft)
    assert Artefact.of(draft / model).sha256 == artefact.sha256
    files = _files(draft, model, ["deep/w.bin"])
    assert {file.name: file.role for file in files}["deep/w.bin"] == "weights"
    whole = certificate.but(model=model, format=artefact.format, files=files)
    assert _hashes(draft, whole).answer is CheckAnswer.HOLDS
    less = whole.but(files=tuple(file for file in files if file.role != "weights"))
    assert _hashes(draft, less).found.endswith("without a hash: w.bin")
    (draft / "deep/w.bin").write_bytes(b"\x01" * 48)
    assert _hashes(draft, whole).answer is CheckAnswer.FAILS
