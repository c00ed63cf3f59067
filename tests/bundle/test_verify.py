from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd import api
from edgekd.artefacts import Artefact, Backend
from edgekd.bundle.certificate_checks import sound
from edgekd.bundle.contents import bundle_digest, contents_of
from edgekd.bundle.preprocess import PREPROCESS
from edgekd.bundle.samples import SAMPLES, Samples, samples_bytes
from edgekd.bundle.verify import VerifyLine, VerifyReport, read_certificate, verify_bundle
from edgekd.bundle.write import _files, copy_model
from edgekd.devices._protocol import Load, Outcome
from edgekd.errors import ConfigurationError, MissingError, UsageError
from edgekd.measure.figures import file_figures
from edgekd.records import digest_file
from edgekd.store.atomic import write_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.targets.verdict import Answer, judge
from edgekd.tasks._protocol import TaskSpec
from edgekd.testing.fakes.device import FakeDevice, TimingNoise, fake_fingerprint
from tests.core.test_external_weights import saved

MakeDevice = Callable[..., FakeDevice]


def verified(bundle: Path, device: FakeDevice, tmp_path: Path, digest: str | None = None) -> VerifyReport:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return verify_bundle(bundle, device.open(), scratch, digest=digest)


def check(report: VerifyReport, name: str) -> VerifyLine:
    return next(check for check in report.checks if check.name.startswith(name))


def test_a_good_bundle_holds(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 0
    assert [one.answer.value for one in report.checks] == ["reported only"] + ["holds"] * 7 + ["not repeated"]
    assert check(report, "files and hashes").found == "5 of 5"
    assert check(report, "parity").found.startswith("20 of 20 answers")
    assert "fresh processes" in check(report, "latency.p95 <= 200 us").found
    assert "not in the bundle" in check(report, "accuracy").found
    assert check(report, "labels").found == "100.0% top1 on 20 samples with labels, 90.0% certified"
    assert check(report, "figures").found == "5 as certified"
    assert check(report, "digest").found == report.sha256 == bundle_digest(bundle)
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
    assert f"not listed: {name}" in check(report, "files and hashes").found
    assert device.batches == 0


def test_a_budget_that_is_only_reported_fails_nothing(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    certificate = read_certificate(bundle)
    budgets = {"latency": {"p95": "1 us", "report": True}, "energy": {"per_inference": "1 mJ", "report": True}}
    loose = type(certificate.target).model_validate({**certificate.target.model_dump(mode="json"), "budgets": budgets})
    write_json(bundle / CERTIFICATE, certificate.but(target=loose, verdict=judge(loose, certificate.figures)))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 0
    assert check(report, "latency.p95").answer.value == "reported only"
    assert check(report, "energy.per_inference").answer.value == "reported only"


@pytest.mark.slow
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
    for name in ("latency.p95", "memory.model"):
        assert check(report, name).answer.value == "not repeated"
        assert "cpu" in check(report, name).found
    assert check(report, "size.file").answer.value == "holds"  # a file is as large on any machine
    assert check(report, "figures").found == "1 as certified"
    assert check(report, "parity").answer.value == "holds"


def test_another_packages_runtime_makes_no_other_machine(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    plain = fake_fingerprint()
    device = make_device(fingerprint=plain.but(runtimes={**plain.runtimes, "tiny": "1.0"}))
    assert check(verified(bundle, device, tmp_path), "latency.p95").answer.value == "holds"


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


def test_a_noisy_machine_is_unstable(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    report = verified(bundle, make_device(latency_us=160.0, noise=TimingNoise(low=0.3)), tmp_path)
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
    model = copy_model(artefact, draft)
    assert Artefact.of(draft / model).sha256 == artefact.sha256
    for name in ("README.md", "example.py"):
        (draft / name).touch()
    files = _files(draft, model, ["deep/w.bin"])
    assert {file.name: file.role for file in files}["deep/w.bin"] == "weights"
    whole = certificate.but(model=model, format=artefact.format, files=files)
    assert contents_of(draft, whole).problems == ()
    less = whole.but(files=tuple(file for file in files if file.role != "weights"))
    assert contents_of(draft, less).problems == ("not listed: deep/w.bin",)
    (draft / "deep/w.bin").write_bytes(b"\x01" * 48)
    assert contents_of(draft, whole).problems == ("differ: deep/w.bin",)
    (draft / "deep/w.bin").write_bytes((artefact.path.parent / "deep/w.bin").read_bytes())
    (draft / "deep" / ".w.bin").write_bytes((draft / "deep/w.bin").read_bytes())
    assert contents_of(draft, whole).problems == ("not listed: deep/.w.bin",)


def changed(bundle: Path, **changes: Any) -> Certificate:
    """The bundle's certificate written anew, with the hashes of the files as they are now."""
    certificate = read_certificate(bundle)
    files = tuple(
        file.but(sha256=digest_file(bundle / file.name), size_bytes=(bundle / file.name).stat().st_size)
        for file in certificate.files
    )
    certificate = certificate.but(**{"files": files, **changes})
    write_json(bundle / CERTIFICATE, certificate)
    return certificate


@pytest.mark.parametrize("name", ["numpy.py", "pkg/__init__.py", "link"])
def test_a_file_that_nobody_certified_is_found(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, name: str
) -> None:
    (bundle / "pkg").mkdir()
    if name == "link":
        (bundle / name).symlink_to(tmp_path, target_is_directory=True)
    else:
        (bundle / name).write_text("print('started')")
    (bundle / ".gitattributes").touch()
    (bundle / ".git").mkdir()
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 7
    assert check(report, "files and hashes").found == f"5 of 5; not listed: {name}"
    assert check(report, "hidden files").found == "not covered: .git, .gitattributes"


@pytest.mark.parametrize("role", ["model", "preprocess", "samples", "card", "example"])
def test_every_role_is_there_once(bundle: Path, make_device: MakeDevice, tmp_path: Path, role: str) -> None:
    files = read_certificate(bundle).files
    changed(bundle, files=tuple(file.but(role="other format") if file.role == role else file for file in files))
    device = make_device()
    report = verified(bundle, device, tmp_path)
    assert report.exit_code == 7
    assert f"role {role}: no file" in check(report, "files and hashes").found
    assert device.batches == 0


def test_a_digest_reveals_a_forged_certificate(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    expected = bundle_digest(bundle)
    for given in (expected, expected[:16].upper(), f"sha256:{expected}"):
        report = verify_bundle(bundle, make_device().open(), scratch_of(tmp_path), digest=given)
        assert (report.exit_code, check(report, "digest").answer.value) == (0, "holds")
    changed(bundle, run="another")
    device = make_device()
    forged = verify_bundle(bundle, device.open(), scratch_of(tmp_path), digest=expected)
    assert (forged.exit_code, check(forged, "digest").answer.value, device.batches) == (7, "fails", 0)
    for given in ("", expected[:15], "z" * 16, expected + "0"):
        with pytest.raises(UsageError, match="hexadecimal digits"):
            verify_bundle(bundle, make_device().open(), scratch_of(tmp_path), digest=given)


def scratch_of(tmp_path: Path) -> Path:
    scratch = tmp_path / "again"
    scratch.mkdir(exist_ok=True)
    return scratch


def forged_accuracy(certificate: Certificate, value: float) -> dict[str, Any]:
    """An accuracy that every part of the certificate agrees on."""
    figures = tuple(f.but(value=value) if f.metric == "accuracy" else f for f in certificate.figures)
    return {
        "figures": figures,
        "accuracy": certificate.accuracy.but(value=value),
        "verdict": judge(certificate.target, figures),
    }


def test_an_accuracy_that_the_samples_labels_contradict_is_not_believed(
    bundle: Path, make_device: MakeDevice, samples: Samples, spec: TaskSpec, tmp_path: Path
) -> None:
    wrong = dataclasses.replace(samples, labels=np.where(np.arange(20) < 4, samples.labels, (samples.labels + 1) % 3))
    (bundle / SAMPLES).write_bytes(samples_bytes(wrong))
    changed(bundle, **forged_accuracy(read_certificate(bundle), 0.999))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 7
    assert check(report, "labels").found == "20.0% top1 on 20 samples with labels, 99.9% certified"
    changed(bundle, **forged_accuracy(read_certificate(bundle), 0.3))
    honest = verify_bundle(bundle, make_device().open(), scratch_of(tmp_path))
    assert check(honest, "labels").answer.value == "holds"


def test_a_figure_that_a_fresh_one_contradicts_is_not_believed(
    bundle: Path, make_device: MakeDevice, tmp_path: Path
) -> None:
    certificate = read_certificate(bundle)
    figures = tuple(
        f.but(value=0.001, low=0.0005, high=0.002) if f.metric.startswith("latency") else f for f in certificate.figures
    )
    changed(bundle, figures=figures, verdict=judge(certificate.target, figures))
    for load in (0.1, 30.0):
        device = make_device(load_average=load)
        report = verify_bundle(bundle, device.open(), scratch_of(tmp_path))
        assert (report.exit_code, check(report, "figures").answer.value) == (6, "unstable")
        assert "latency.p95" in check(report, "figures").found
        assert f"governor performance, load {load} on" in check(report, "figures").found
    memory = [f.but(value=1.0, low=1.0, high=1.0) if f.metric == "memory.model" else f for f in certificate.figures]
    changed(bundle, figures=tuple(memory), verdict=judge(certificate.target, memory))
    report = verify_bundle(bundle, make_device().open(), scratch_of(tmp_path))
    assert (report.exit_code, check(report, "figures").answer.value) == (7, "fails")


@pytest.mark.parametrize(("share", "code"), [(1.0, 0), (1.015, 0), (1.03, 7)])
def test_a_download_may_differ_by_what_builds_of_zlib_do(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, share: float, code: int
) -> None:
    (bundle / "model.tflite").write_bytes(np.random.default_rng(0).bytes(10_000))
    certificate = read_certificate(bundle)
    budgets = {"size": {"download": "20 KiB"}}
    target = (
        type(certificate.target)
        .model_validate({**certificate.target.model_dump(mode="json"), "budgets": budgets})
        .but(accuracy=certificate.target.accuracy)
    )
    fresh = file_figures(target, Artefact.of(bundle / "model.tflite"))
    own = [f.but(value=f.value * share) if f.metric == "size.download" else f for f in fresh]
    figures = (*own, *(f for f in certificate.figures if not f.metric.startswith("size.")))
    changed(bundle, target=target, figures=figures, verdict=judge(target, figures))
    report = verified(bundle, make_device(fingerprint=fake_fingerprint(cpu="Another CPU")), tmp_path)
    assert (report.exit_code, check(report, "figures").answer.value) == (code, "fails" if code else "holds")


@pytest.mark.parametrize(
    ("outcome", "detail"),
    [
        (Outcome.OUT_OF_MEMORY, "std::bad_alloc"),
        (Outcome.HUNG, "no answer within 30 s"),
        (Outcome.CRASHED, "killed by SIGKILL while asked to run a round"),
        (Outcome.CRASHED, "killed by SIGSEGV while asked to run a round"),
    ],
)
@pytest.mark.parametrize("step", ["run", "measure"])
def test_a_shortage_of_this_machine_is_no_fault_of_the_bundle(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, step: str, outcome: Outcome, detail: str
) -> None:
    session = make_device().open()
    done = getattr(session, step)

    def short(*words: Any, **more: Any) -> Any:
        found = done(*words, **more)
        failed = {"outcome": outcome, "detail": detail}
        if step == "run":
            return found.but(**failed)
        return [one.but(**failed, processes=()) for one in found]

    setattr(session, step, short)
    scratch = scratch_of(tmp_path)
    if "SIGSEGV" in detail:
        assert verify_bundle(bundle, session, scratch).exit_code == (7 if step == "run" else 5)
        return
    with pytest.raises(MissingError, match=detail):
        verify_bundle(bundle, session, scratch)


def test_want_of_memory_while_a_file_is_read_is_no_damage(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingError, match=r"model\.tflite: there is not enough memory"),
        sound(tmp_path / "model.tflite"),
    ):
        raise MemoryError


def test_a_file_larger_than_certified_is_found_on_any_machine(
    bundle: Path, make_device: MakeDevice, tmp_path: Path
) -> None:
    (bundle / "model.tflite").write_bytes(b"x" * 2000)
    changed(bundle)
    report = verified(bundle, make_device(fingerprint=fake_fingerprint(cpu="Another CPU")), tmp_path)
    assert report.exit_code == 7
    assert check(report, "size.file").answer.value == "fails"
    assert check(report, "figures").found.startswith("size.file 1.95 KiB, 20 B certified")


def test_a_certificate_of_a_busy_machine_says_so(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    changed(bundle, load_average=30.0, machine_cores=2)
    report = verified(bundle, make_device(), tmp_path)
    assert (report.exit_code, check(report, "load").answer.value) == (0, "reported only")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 1000, "round_ms": 60_000.0}, "900 s"),
        ({"warmup_ms": 60_000.0}, "900 s"),
        ({"energy": True, "energy_window_s": 600.0}, "900 s"),
        ({"load": Load(pattern="periodic", rate_hz=1e-300)}, "900 s"),
        ({"load": Load(busy=64)}, "64 cores"),
        ({"rounds": 1000, "round_ms": 0.0, "min_calls": 100, "warmup_ms": 0.0}, "500000 calls"),
    ],
)
def test_a_plan_without_end_is_refused(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    changed(bundle, plan=read_certificate(bundle).plan.but(**changes))
    device = make_device()
    with pytest.raises(ConfigurationError, match=said):
        verified(bundle, device, tmp_path)
    assert device.batches == 0


def test_a_certificate_of_many_batches_is_decided_by_as_few_as_will_do(
    bundle: Path, make_device: MakeDevice, tmp_path: Path
) -> None:
    """Its plan counts the processes of all batches; at a slow periodic load they take longer than anybody waits."""
    changed(bundle, plan=read_certificate(bundle).plan.but(processes=10_000))
    assert ", 5 fresh processes" in check(verified(bundle, make_device(), tmp_path), "latency.p95 <= 200 us").found


@pytest.mark.parametrize("field", ["processes", "rounds", "round_ms", "min_calls", "warmup_ms", "load_deadline_s"])
def test_a_plan_out_of_all_bounds_is_an_error_of_its_field(bundle: Path, field: str) -> None:
    data = json.loads((bundle / CERTIFICATE).read_text())
    data["plan"][field] = 10**12
    (bundle / CERTIFICATE).write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=rf"plan\.{field}"):
        read_certificate(bundle)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (("task", "input", "std"), [0.0], "one std above 0"),
        (("task", "input", "mean"), [1.0, 2.0], "one mean"),
        (("task", "head", "classes"), -3, "no answer"),
        (("task", "input", "shape"), [1 << 20, 1 << 20, 3], "no sample"),
        (("parity", "samples"), 0, "samples agree"),
        (("accuracy", "value"), 0.99, "another one than among the figures"),
        (("verdict", "limits"), [], "other limits"),
        (("figures", 0, "kind"), "simulated", "no simulated figures"),
        (("fingerprint", "cores"), -5, r"fingerprint\.cores"),
        (("fingerprint", "memory_bytes"), -1, r"fingerprint\.memory_bytes"),
    ],
)
def test_a_certificate_that_contradicts_itself_is_an_error_of_its_field(
    bundle: Path, make_device: MakeDevice, tmp_path: Path, at: tuple[str | int, ...], value: object, said: str
) -> None:
    data = json.loads((bundle / CERTIFICATE).read_text())
    inside = data
    for key in at[:-1]:
        inside = inside[key]
    inside[at[-1]] = value
    (bundle / CERTIFICATE).write_text(json.dumps(data))
    with pytest.raises(ConfigurationError, match=said) as caught:
        verified(bundle, make_device(), tmp_path)
    assert CERTIFICATE in str(caught.value)


@pytest.mark.parametrize("field", ["name", "model"])
def test_a_name_with_a_nul_is_no_file(bundle: Path, make_device: MakeDevice, tmp_path: Path, field: str) -> None:
    certificate = read_certificate(bundle)
    if field == "model":
        changed(bundle, model="mo\0del.tflite")
    else:
        first, *others = certificate.files
        write_json(bundle / CERTIFICATE, certificate.but(files=(first.but(name="mo\0del.tflite"), *others)))
    report = verified(bundle, make_device(), tmp_path)
    assert report.exit_code == 7
    assert r"mo\x00del.tflite" in check(report, "files and hashes").found


def test_a_model_that_links_to_itself_is_no_file(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    (bundle / "model.tflite").unlink()
    (bundle / "model.tflite").symlink_to("model.tflite")
    report = verified(bundle, make_device(), tmp_path)
    assert (report.exit_code, check(report, "files and hashes").found) == (7, "4 of 5; differ: model.tflite")


def test_a_certificate_that_was_cut_off_is_to_be_written_again(
    bundle: Path, make_device: MakeDevice, tmp_path: Path
) -> None:
    path = bundle / "certificate.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(ConfigurationError, match="write the bundle again: edgekd export RUN"):
        verify_bundle(bundle, make_device().open(), scratch_of(tmp_path))


def test_operators_of_a_damaged_file_are_not_counted(bundle: Path, make_device: MakeDevice, tmp_path: Path) -> None:
    (bundle / "model.tflite").write_bytes(b"\xff\xff\xff\x7fTFL3" + bytes(12))
    certificate = read_certificate(bundle)
    target = certificate.target.but(fully_integer=True, accuracy=None)
    changed(bundle, target=target, verdict=judge(target, certificate.figures))
    with pytest.raises(ConfigurationError, match=r"model\.tflite.*damaged"):
        verified(bundle, make_device(), tmp_path)


def test_the_folder_of_a_run_names_its_bundle(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"give {bundle}")):
        read_certificate(tmp_path)
