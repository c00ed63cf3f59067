"""Tables outlive the run that measured them, travel as files, and hold for their own fingerprint alone."""

from __future__ import annotations

import json

import pytest

from edgekd.artefacts import Backend
from edgekd.errors import ConfigurationError, UsageError
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import BACKENDS
from edgekd.ir.numerics import Precision
from edgekd.measure.tables import (
    LatencyTable,
    TableRow,
    add_rows,
    export_table,
    import_tables,
    kept_tables,
    list_tables,
    of_one_state,
    tables_of,
    tables_of_others,
)
from edgekd.store.atomic import write_json
from edgekd.testing.fakes.device import fake_fingerprint
from tests.measure.prediction.device_on_paper import some_networks

NETWORKS = some_networks(5, seed=0)


def table(rows, **changes):
    return LatencyTable(
        **{
            "device": "board",
            "fingerprint": fake_fingerprint(),
            "backend": Backend.model_validate("litert/xnnpack"),
            "precision": Precision.INT8,
            "rows": tuple(TableRow(kernels=NETWORKS[place], p5_us=us) for place, us in rows),
            **changes,
        }
    )


def test_rows_come_together_and_the_later_one_of_a_network_counts(tmp_path):
    add_rows(table([(0, 10.0), (1, 20.0)]), tmp_path)
    add_rows(table([(1, 21.0), (2, 30.0)]), tmp_path)
    (kept,) = kept_tables(tmp_path)
    assert [(row.kernels, row.p5_us) for row in kept.rows] == [
        (NETWORKS[0], 10.0),
        (NETWORKS[1], 21.0),
        (NETWORKS[2], 30.0),
    ]


def test_another_fingerprint_precision_or_number_of_threads_is_another_table(tmp_path):
    here = fake_fingerprint()
    changed = here.but(governor="powersave")
    for one in (
        table([(0, 1.0)]),
        table([(0, 2.0)], precision=Precision.FLOAT32),
        table([(0, 3.0)], threads=2),
        table([(0, 4.0)], fingerprint=changed),
        table([(0, 5.0)], fingerprint=here.but(runtimes={"litert": "99.0"})),
    ):
        add_rows(one, tmp_path)
    assert len(kept_tables(tmp_path)) == 5
    assert sorted(found.rows[0].p5_us for found in tables_of(here, 1, tmp_path)) == [1.0, 2.0]
    assert [found.rows[0].p5_us for found in tables_of(changed, 1, tmp_path)] == [4.0]
    assert sorted(found.rows[0].p5_us for found in tables_of_others(here, 1, tmp_path)) == [4.0, 5.0]
    assert tables_of_others(here, 2, tmp_path) == ()


def test_another_packages_runtime_changes_the_tables_of_its_own_backends_alone(tmp_path, monkeypatch):
    tiny = Backend.model_validate("tiny/cpu")
    monkeypatch.setattr("edgekd.measure.tables.BACKENDS", {**BACKENDS, str(tiny): BACKENDS["litert/xnnpack"]})
    before = fake_fingerprint()
    first, later = (
        before.but(runtimes={**before.runtimes, "tiny": version}, providers={**before.providers, "tiny": ("cpu",)})
        for version in ("1.0", "1.1")
    )
    for one in (
        table([(0, 1.0)], fingerprint=before),
        table([(0, 2.0)], fingerprint=first, backend=tiny),
        table([(0, 3.0)], fingerprint=later, backend=tiny),
        table([(1, 4.0)], fingerprint=later),  # to those of the first
    ):
        add_rows(one, tmp_path)
    assert len(kept_tables(tmp_path)) == 3
    for here, found in ((before, [1.0]), (first, [1.0, 2.0]), (later, [1.0, 3.0])):
        kept, others = tables_of(here, 1, tmp_path), tables_of_others(here, 1, tmp_path)
        assert sorted(one.rows[0].p5_us for one in kept) == found
        assert len(kept) + len(others) == 3
        assert of_one_state(kept)
    assert not of_one_state(kept_tables(tmp_path))
    assert not of_one_state(())


def test_a_table_travels_as_a_file(tmp_path):
    write_json(tmp_path / "sent.json", table([(0, 10.0), (3, 40.0)]))
    add_rows(table([(4, 50.0)]), tmp_path / "mine")
    (imported,) = import_tables([tmp_path / "sent.json"], tmp_path / "mine").tables
    assert imported.rows == 3
    (kept,) = kept_tables(tmp_path / "mine")
    assert len(kept.rows) == 3


def test_what_is_no_table_is_refused_by_name(tmp_path):
    (tmp_path / "other.json").write_text('{"schema": "edgekd.bench/1"}')
    with pytest.raises(ConfigurationError, match=r"edgekd.latency-table/1"):
        import_tables([tmp_path / "other.json"], tmp_path / "mine")
    assert kept_tables(tmp_path / "nowhere") == ()


def test_a_damaged_table_is_reported_and_stops_itself_alone(tmp_path):
    here = fake_fingerprint()
    add_rows(table([(0, 1.0)]), tmp_path)
    damaged = tmp_path / add_rows(table([(0, 2.0)], precision=Precision.FLOAT32), tmp_path).name
    damaged.write_bytes(damaged.read_bytes()[:50])
    notes: list[str] = []
    assert [found.rows[0].p5_us for found in tables_of(here, 1, tmp_path, notes.append)] == [1.0]
    assert damaged.name in notes[0]
    assert "delete it, and measure again: edgekd profile" in notes[0]
    listed = list_tables(tmp_path)
    assert len(listed.tables) == 1
    assert "edgekd profile" in "\n".join(listed.lines())


def test_a_devices_name_is_no_path(tmp_path):
    add_rows(table([(0, 1.0)], device="../../etc/x y"), tmp_path)
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path]


@pytest.mark.parametrize(
    ("field", "value"),
    [("outputs", 0), ("inputs", -3), ("height", 2**70), ("macs", 10**400), ("macs", -1), ("stride", 0)],
)
def test_kernels_that_no_network_has_are_refused(tmp_path, field, value):
    content = table([(0, 10.0)]).model_dump(mode="json")
    place = type(NETWORKS[0][0])._fields.index(field)
    content["rows"][0]["kernels"][0][place] = value
    (tmp_path / "sent.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"sent\.json"):
        import_tables([tmp_path / "sent.json"], tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("backend", ["tvm/cpu", "litert/x\0y"])
def test_a_backend_nobody_knows_is_refused(tmp_path, backend):
    content = table([(0, 10.0)]).model_dump(mode="json")
    content["backend"] = backend
    (tmp_path / "sent.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"sent\.json"):
        import_tables([tmp_path / "sent.json"], tmp_path / "mine")


def test_a_name_of_any_length_has_a_file(tmp_path):
    add_rows(table([(0, 1.0)], device="ü" * 300), tmp_path)
    assert len(kept_tables(tmp_path)) == 1


def test_emulated_rows_make_an_emulated_table(tmp_path):
    add_rows(table([(0, 1.0)], kind=EvidenceKind.EMULATED), tmp_path)
    add_rows(table([(1, 2.0)]), tmp_path)
    assert kept_tables(tmp_path)[0].kind is EvidenceKind.EMULATED


def test_the_whole_name_of_a_table_is_enough(tmp_path):
    for threads in (1, 16):
        add_rows(table([(0, 1.0)], threads=threads), tmp_path / "mine")
    name = table([], threads=1).name.removesuffix(".json")
    export_table(name, tmp_path / "sent.json", folder=tmp_path / "mine")
    with pytest.raises(UsageError, match="2 tables begin"):
        export_table(name[:-2], tmp_path / "other.json", folder=tmp_path / "mine")
