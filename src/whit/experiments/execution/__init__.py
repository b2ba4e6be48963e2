"""Where the runs of a study or search execute: local processes, or a dask cluster."""

__all__ = ["dask_cluster", "dask_task", "job", "local", "runner", "worker"]
