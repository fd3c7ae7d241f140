"""Programs: parse flags, build, call. All run as `python -m launch.NAME`."""
