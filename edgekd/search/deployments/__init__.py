"""Deployments (backend at a precision): ranking on reference archs, and rechecks of that ranking."""
