"""From a space of students to one that was measured to meet the target.

Filters remove what cannot fit, reference archs compare the deployments (backend and precision), a sampler proposes, the
device measures, an accuracy estimate ranks, finalists run the full recipe, and the choice is made side by side in fresh
processes. Deciding, running and looping are apart: deciders are pure functions of records in the run folder, so the
same recorded facts give the same decisions (`replay`), and a stopped run goes on without repeating a finished step.
"""
