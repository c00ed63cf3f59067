"""Run folder: the only truth of a run, written atomically and read back as frozen records.

`records` defines the content of each file, `run.Run` reads and writes them, `atomic` makes each write all or nothing,
`lock` keeps a second writer out, and `schema` refuses files that this version can't read. Everything else that edgekd
shows about a run is recomputed from these files.
"""
