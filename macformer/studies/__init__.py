"""Studies: questions about the method, each answered by a command, a CSV, a table and a plot.

    macformer-study study=speed size=smoke

A study is a module of four functions, named by ``module`` in ``configs/study/<name>.yaml``:

    points(cfg)         -> list of dicts      the grid of this size, with its seeds
    measure(point, cfg) -> iterable of dicts  the rows measured at one point
    table(frame)        -> DataFrame          what table.md shows
    plot(frame)         -> Figure             what plot.png and plot.svg show

``cfg`` is ``configs/study.yaml`` composed: ``cfg.grid`` is the block of the chosen size,
``cfg.study.settings`` what all sizes share (under ``tasks`` the options of each value that a point
may have for ``task``), ``cfg.seeds`` the seeds, ``cfg.device`` the device. A point is a flat dict
of strings and numbers that says all that differs between two measurements, its ``seed`` included:
points that stand in ``rows.csv``, measured on the same kind of device by as many threads, are not
measured again. ``measure`` seeds itself from the point and returns rows without the point's own
keys, which :mod:`macformer.studies.runner` adds, together with device, versions and commit where a
row does not name its own. ``table`` and ``plot`` see nothing but the frame of ``rows.csv``, so
``render=true`` rebuilds both from it.

A study outside this package works alike: a YAML in a folder given by ``--config-dir``, whose
``module`` can be imported.
"""
