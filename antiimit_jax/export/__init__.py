"""What was trained leaves in formats that others read."""
