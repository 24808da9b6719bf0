"""Shards from an object store: fetched ahead, whole and checked, read, and what went wrong by
name.
"""
