"""Prior observations: earlier latency tables of this device and of others, read when a search begins.

Reads the person's latency tables once and writes prior_tables.json, so that a replay uses the same. Rows measured on
the device in its present state are observations. Rows from other devices, from other states of this one, or of
deployments outside the search, are priors at most: for deployments with few observations here
(`edgekd.measure.prediction.priors`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekd.events import Events
from edgekd.measure.prediction.predictor import ENOUGH_ALONE, LatencyPredictor, fit_prior
from edgekd.measure.prediction.priors import choose_prior, observations_of, prior_words
from edgekd.measure.tables import LatencyTable, tables_of, tables_of_others
from edgekd.store.predicted import Observation, PriorFit, PriorTable, PriorTablesRecord
from edgekd.store.records import Deployment, PlanRecord
from edgekd.store.run import Run

__all__ = ["OtherDevices", "prior_tables"]


def prior_tables(run: Run, plan: PlanRecord, events: Events) -> PriorTablesRecord:
    """Read the tables of the plan's deployments as they are now; unreadable ones are reported."""
    header = run.header
    tables = tables_of(header.fingerprint, header.target.threads, note=_note(events))
    found: dict[Deployment, list[Observation]] = {}
    for table in tables:
        if _deployment(table) in plan.deployments:
            found.setdefault(_deployment(table), []).extend(observations_of(table.rows))
    short = [deployment for deployment in plan.deployments if len(found.get(deployment, ())) < ENOUGH_ALONE]
    others = tables_of_others(header.fingerprint, header.target.threads, note=_note(events)) if short else ()
    own_others = [
        table for table in tables if _deployment(table) not in plan.deployments
    ]  # those of its deployments are observations
    priors: dict[str, LatencyTable] = {}
    for deployment in short:
        prior = choose_prior(
            deployment.backend, deployment.precision, header.target.device, header.fingerprint, (*own_others, *others)
        )
        if prior is not None:
            priors[prior.name] = prior
    return PriorTablesRecord(
        tables=tuple(PriorTable(deployment=deployment, observations=tuple(rows)) for deployment, rows in found.items()),
        priors=tuple(
            PriorTable(
                deployment=_deployment(table),
                observations=observations_of(table.rows),
                device=table.device,
                here=table.holds_for(header.fingerprint),
            )
            for table in priors.values()
        ),
    )


class OtherDevices:
    """Priors in prior_tables.json, each fitted once a run: ``fits`` are those of the run's last record."""

    def __init__(self, tables: Sequence[PriorTable] = (), fits: Sequence[PriorFit] = ()) -> None:
        self._tables = tuple(tables)
        self._fits = {fit.table: fit for fit in fits}

    @property
    def fits(self) -> tuple[PriorFit, ...]:
        """Fits of the priors used so far, to be recorded."""
        return tuple(self._fits[table] for table in sorted(self._fits))

    def place(self, deployment: Deployment, alike: bool) -> int | None:
        """Index of the prior table for a deployment: one of the same deployment, else the fullest."""
        mine = [at for at, table in enumerate(self._tables) if table.deployment == deployment or not alike]
        return max(
            mine,
            key=lambda at: (self._tables[at].deployment == deployment, len(self._tables[at].observations)),
            default=None,
        )

    def predictor(self, place: int) -> LatencyPredictor:
        """Predictor of the table at ``place``."""
        observations = self._tables[place].observations
        if place not in self._fits:
            made = fit_prior(observations)
            self._fits[place] = PriorFit(table=place, costs=made.costs, scales=made.scales)
        fit = self._fits[place]
        return LatencyPredictor(costs=fit.costs, scales=fit.scales, observations=observations, widths=(), held_out=None)

    def words(self, place: int, device: str) -> str:
        """Describe the table at ``place`` in a search for ``device``."""
        table = self._tables[place]
        return prior_words(str(table.deployment), table.device, device, table.here)


def _note(events: Events) -> Callable[[str], None]:
    return lambda words: events.line(f"note: a latency table is not used: {words}")


def _deployment(table: LatencyTable) -> Deployment:
    return Deployment(backend=table.backend, precision=table.precision)
