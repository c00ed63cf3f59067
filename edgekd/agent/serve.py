"""The agent's parent: answers the host on stdin and stdout, and ends, with all its workers, when the host is gone."""

from __future__ import annotations

import hashlib
import os
import platform
import queue
import threading
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional

from edgekd.agent import batch
from edgekd.agent.child import Child, Failed
from edgekd.agent.cooling import Cooling, temperature_c
from edgekd.agent.cores import CoresRefused, bind
from edgekd.agent.faults import Fault
from edgekd.agent.fingerprint import fingerprint
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.lock import take, tidy
from edgekd.agent.messages import (
    PROTOCOL,
    BadMessage,
    Closed,
    JobRequest,
    LineReader,
    PlanRequest,
    decode,
    encode,
    field,
)
from edgekd.agent.meters import Meter, MeterError, found_meter, open_meter

__all__ = ["main"]

Message = Dict[str, Any]


def main(lock: str = "", token: str = "", options: str = "") -> int:
    """Serve until stdin closes.

    ``lock`` is a file that only one agent holds; ``token`` names the computer that asks for it; ``options`` are JSON.
    """
    held_by = take(lock, token) if lock else ""
    if lock and not held_by:
        tidy(os.path.dirname(lock))
    place = _Place(decode(options.encode()) if options else {})
    out = os.dup(1)
    os.dup2(2, 1)
    requests: queue.Queue[Message] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()

    def send(message: Message) -> None:
        line = encode(message)
        while line:
            line = line[os.write(out, line) :]

    while True:
        message = requests.get()
        if "bad" in message:
            send({"id": None, "error": str(message["bad"])})
            return 1
        number = message.get("id")

        def reply(fields: Message, number: Any = number) -> None:
            send(dict(fields, id=number))

        try:
            op = field(message, "op", str)
            if op not in _REQUESTS:
                raise BadMessage("no request `%s`" % op)
            if held_by and op != "hello":
                raise BadMessage("the device is held by process %s" % held_by)
            done = _REQUESTS[op](message, reply, place)
            if op == "hello":
                done["held_by"] = held_by
        except (BadMessage, RuntimeError, OSError) as error:
            reply({"error": str(error)})
        else:
            try:
                reply({"done": done})
            except ValueError as error:  # NaN is no number here
                reply({"error": "no answer that can be sent: %s" % error})


def _read(requests: queue.Queue[Message]) -> None:
    """Reads stdin beside the work, so that the host's end is noticed at once: the kernel then ends the workers too."""
    lines = LineReader(0)
    while True:
        try:
            requests.put(lines.read())
        except Closed:
            os._exit(0)
        except BadMessage as error:
            requests.put({"bad": error})
            return


class _Place:
    """Surroundings of the work: others' load before it began, limits, and the meter or why there is none."""

    def __init__(self, options: Message) -> None:
        try:
            self.load_average: Optional[float] = os.getloadavg()[0]
        except (OSError, AttributeError):  # some phones do not tell it
            self.load_average = None
        self.unenforced = self.on_cores = ""
        try:
            self.on_cores = bind(options["on_cores"]) if options.get("on_cores") else ""
        except CoresRefused as error:
            self.unenforced = str(error)
        self.cooling = Cooling(*(options["cooling"] if options else ()))
        if self.cooling.below_c and temperature_c() is None:
            self.unenforced = "waiting until it is cool: this device tells no temperature of its processor"
        self.yard = Yard(Limits.read(options["limits"]) if options else Limits())
        self.unenforced = self.unenforced or self.yard.unenforced
        self.meter: Optional[Meter] = None
        self.no_meter = ""
        chosen: Message = options.get("meter", {"kind": "first", "root": "/"})
        try:
            if chosen["kind"] == "none":
                self.no_meter = "none is used, by the device file"
            elif chosen["kind"] == "first":
                self.meter, self.no_meter = found_meter(chosen["root"])
            else:
                self.meter = open_meter(chosen["kind"], chosen["path"], chosen["scale"], chosen["root"])
        except MeterError as error:
            self.no_meter = str(error)


Reply = Callable[[Message], None]
_PULSE_S = 2.0


class _Pulse:
    """Says that the agent is alive, as often as it is called but not more than every two seconds.

    It is called after every answer of a worker: many short rounds are as long a silence as one long round.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply, self.replied_s = reply, time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self.replied_s >= _PULSE_S:
            self.reply({"alive": True})
            self.replied_s = time.monotonic()


def _hello(_message: Message, _reply: Reply, place: _Place) -> Message:
    answer = {"protocol": PROTOCOL, "python": platform.python_version(), "pid": os.getpid()}
    return dict(answer, unenforced=place.unenforced)


def _describe(message: Message, _reply: Reply, place: _Place) -> Message:
    meter = place.meter.name if place.meter else ""
    return dict(
        fingerprint(field(message, "runtimes", dict)),
        limits=place.yard.words,
        on_cores=place.on_cores,
        cooling=str(place.cooling),
        meter=meter,
        no_meter=place.no_meter,
    )


def _load(message: Message, reply: Reply, place: _Place) -> Message:
    job, plan = JobRequest.read(field(message, "job", dict)), PlanRequest.read(field(message, "plan", dict))
    damaged = _damaged(job, _Pulse(reply))
    if damaged is not None:
        return _outcome(damaged)
    load = partial(batch.try_loading, job, waiting=_Pulse(reply))
    try:
        batch.at_most_twice(lambda: load(plan, place.yard))
    except Failed as failed:
        return _outcome(batch.explained(failed, plan, place.yard, load))
    return _outcome(None)


def _measure(message: Message, reply: Reply, place: _Place) -> Message:
    """Measure a batch: a message a finished step, then one a job, then the sentinel's readings."""
    plan = PlanRequest.read(field(message, "plan", dict))
    jobs = [JobRequest.read(one) for one in field(message, "jobs", list)]
    damaged = [_damaged(job, _Pulse(reply)) for job in jobs]
    whole = [job for job, failed in zip(jobs, damaged) if failed is None]
    meter, step = place.meter or place.no_meter, lambda what: reply({"step": what})
    done = batch.RunningBatch(whole, plan, place.yard, meter, place.cooling, _Pulse(reply), step)
    done.run()
    results = iter(done.results)
    for index, failed in enumerate(damaged):
        if failed is not None:
            reply(dict(_outcome(failed), job=index))
            continue
        result = next(results)
        answer = dict(_outcome(result.failed), state=done.not_cool)
        if result.failed is None:
            machine = {"load_average": place.load_average, "machine_cores": os.cpu_count()}
            samples = [dict(sample, **machine) for sample in result.samples]
            answer.update(processes=samples, placement=result.placement)
            answer.update(operators=result.operators, operators_detail=result.operators_detail, beside=result.beside)
            answer.update(energy=result.energy, energy_detail=result.energy_detail)
        reply(dict(answer, job=index))
    return {"sentinel": [sample["round_p5_us"] for sample in done.sentinel]}


def _run(message: Message, reply: Reply, place: _Place) -> Message:
    """Answer samples; each input file is checked against its digest, each output's digest goes back."""
    job, plan = JobRequest.read(field(message, "job", dict)), PlanRequest.read(field(message, "plan", dict))
    inputs = [(field(one, "path", str), field(one, "sha256", str)) for one in field(message, "inputs", list)]
    folder = field(message, "folder", str)
    pulse = _Pulse(reply)
    os.makedirs(folder, exist_ok=True)
    for path, sha256 in inputs:
        if _digest(path, pulse) != sha256:
            return _outcome(Failed("refused", "the input file %s is not the one that was sent" % path))
    damaged = _damaged(job, pulse)
    if damaged is not None:
        return _outcome(damaged)

    def answer(plan: PlanRequest, yard: Yard) -> List[str]:
        with Child(job, plan.memory_limit_bytes, yard, pulse) as child:
            child.open(plan.load_deadline_s)
            child.load(plan.load_deadline_s, plan.seed)
            done = child.ask("run", plan.call_deadline_s, inputs=[path for path, _ in inputs], folder=folder)
        return list(done["outputs"])

    try:
        paths = batch.at_most_twice(lambda: answer(plan, place.yard))
    except Failed as failed:
        return _outcome(batch.explained(failed, plan, place.yard, answer))
    outputs: List[Message] = [{"path": path, "sha256": _digest(path, pulse)} for path in paths]
    return dict(_outcome(None), outputs=outputs)


_REQUESTS: Dict[str, Callable[[Message, Reply, _Place], Message]] = {
    "hello": _hello,
    "describe": _describe,
    "load": _load,
    "measure": _measure,
    "run": _run,
}


def _outcome(failed: Optional[Failed]) -> Message:
    return {"outcome": failed.outcome if failed else "ok", "detail": failed.detail if failed else ""}


def _damaged(job: JobRequest, pulse: Callable[[], None]) -> Optional[Failed]:
    """A file that isn't the one the host means is refused before any runtime sees it. Raises Fault on unread ones."""
    if not job.sha256:
        return None
    try:
        found = _digest(job.path, pulse)
        weights = os.path.splitext(job.path)[0] + ".bin"
        if job.path.endswith(".xml") and os.path.exists(weights):
            found = hashlib.sha256((found + _digest(weights, pulse)).encode()).hexdigest()
    except OSError as error:
        raise Fault("can't read the model: %s" % error) from error
    if found != job.sha256:
        return Failed("refused", "%s is not the file it was: its content has changed" % job.path)
    return None


def _digest(path: str, pulse: Callable[[], None]) -> str:
    """``pulse`` is called block by block: a slow card takes longer for a large file than the host waits for a word."""
    hashed = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            hashed.update(block)
            pulse()
    return hashed.hexdigest()
