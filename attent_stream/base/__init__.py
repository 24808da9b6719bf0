"""What every floor uses: errors, ranks, random numbers, time, and plug-ins by name."""
