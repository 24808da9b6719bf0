"""Shared by all packages: errors, ranks, random numbers, time, and plug-ins by name."""
