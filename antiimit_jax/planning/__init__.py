"""What a run will need, before anything is downloaded: shapes, memory by phase, what would fit."""
