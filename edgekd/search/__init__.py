"""Search: from a space of students to one that was measured to meet the target.

Constraint filters remove archs that cannot fit, reference archs compare the deployments (backend and precision), a
sampler proposes candidates, the device measures them, an accuracy estimate ranks them, finalists run the full recipe,
and one is chosen side by side with the others in fresh processes. Deciding, running and looping are separate: deciders
are pure functions of records in the run folder, so the same recorded facts give the same decisions (`replay`), and a
stopped run continues without repeating a finished step.
"""
