"""Observers: plugins that watch the hooks of a run and can change nothing of it.

`contract` is what an observer derives from, `load` finds and checks the installed ones, `watch` runs those that the
user named, `dump_stats` is one.
"""
