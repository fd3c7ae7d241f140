"""Statistics on per-item results: pure numpy and scipy, no JAX and no model.

`control` holds the results of an evaluation and the figures of one item; `calibration` and
`baselines` the figures that compare a whole set of items with its targets and with lazy behaviour;
`resampling` and `intervals` how sure any of them is; `rows` turns them into rows of metrics.json;
`drift` does the same for tokens of unrelated text. Every figure is a function of sums over items,
so the same definition gives the value, all its resamples and its jackknife.
"""
