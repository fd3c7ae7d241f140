"""Reporting: a run's files, and what people read of them (page, TensorBoard, console).

Nothing here knows a model: every number shown comes from the files of one run.
"""
