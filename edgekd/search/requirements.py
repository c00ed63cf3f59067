"""Requirements of a target on its device (meter, runtimes), checked before anything is trained."""

from __future__ import annotations

from edgekd.devices._protocol import Fingerprint
from edgekd.errors import MissingError
from edgekd.ir.backends import BACKENDS, can
from edgekd.targets.target import Target

__all__ = ["require_meter", "require_running", "require_runtimes", "simulation_caution"]


def require_meter(target: Target, fingerprint: Fingerprint) -> None:
    """Check for a meter where a hard budget needs one, and for a real one where estimates do not count. Raises
    MissingError.
    """
    asked = [limit for limit in target.limits if limit.hard and limit.metric.startswith(("energy.", "power."))]
    unmet = ", ".join(str(limit) for limit in asked)
    if asked and not fingerprint.meter:
        raise MissingError(
            f"target {target.name} asks for {unmet}, and {target.device} has no power meter: {fingerprint.no_meter}",
            "give its device file a `meter` (kinds: rapl, hwmon, pmic, battery, lines; or constant with modelled: true "
            "in the budget), or write report: true beside the budget",
        )
    if fingerprint.power_is_modelled and not all(limit.modelled for limit in asked):
        raise MissingError(
            f"target {target.name} asks for {unmet}, and what {target.device} draws is somebody's word "
            f"({fingerprint.meter}): energy would be modelled, not measured",
            "write modelled: true beside the budget to let that count, or give the device file a real meter",
        )


def require_runtimes(target: Target, fingerprint: Fingerprint) -> None:
    """Check that every runtime of the target is installed and returns outputs. Raises MissingError."""
    if fingerprint.times_only:
        raise MissingError(
            f"{target.device} tells times only, and a student's answers are checked on its device",
            "put a Python there (on a phone, Termux), and reach it by kind: adb",
        )
    known = [] if fingerprint.simulates else [backend for backend in target.backends if str(backend) in BACKENDS]
    estimated = [str(backend) for backend in known if not can(backend, "execute")]
    untimed = [str(backend) for backend in known if not can(backend, "measure")]
    if estimated:
        raise MissingError(
            f"target {target.name} allows {', '.join(estimated)}, whose figures are estimates, "
            f"and {target.device} runs models",
            "take it out of the target's backends, or name a device that estimates for it",
        )
    if untimed:
        raise MissingError(
            f"target {target.name} allows {', '.join(untimed)}, which answers samples and is never timed",
            "take it out of the target's backends",
        )
    missing = [str(b) for b in target.backends if b.runtime not in fingerprint.runtimes]
    if missing:
        raise MissingError(
            f"target {target.name} allows {', '.join(missing)}, and that runtime is not installed on {target.device}",
            "install it, or take it out of the target's backends; see what is there: "
            f"edgekd doctor --device {target.device}",
        )


def require_running(target: Target, fingerprint: Fingerprint) -> None:
    """Check that models run on the device, so that a file's outputs can be compared. Raises MissingError."""
    if fingerprint.simulates:
        raise MissingError(
            f"{target.device} runs nothing: {fingerprint.simulator} estimates, and a file's answers are checked on its "
            "device",
            "export for a device that runs models; for an estimate alone: edgekd bench MODEL --device NAME",
        )


def simulation_caution(target: Target, fingerprint: Fingerprint) -> str:
    """Caution for a device that only simulates; empty for any other."""
    if not fingerprint.simulates:
        return ""
    return (
        f"{target.device} runs nothing: {fingerprint.simulator} estimates. Candidates are ranked and reported by its "
        "estimates, and none can be certified there"
    )
