"""Command line: one file a command, each a thin call into `edgekd.api` or a room of its own.

stdout is the answer, stderr is progress. Commands are imported when they are called, so that ``edgekd --help`` answers
at once.
"""
