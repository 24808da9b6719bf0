"""Shards from an object store: fetched ahead and checked, or an error that names the cause."""
