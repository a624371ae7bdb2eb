"""Plugins of every kind: find, load, check and call them; start a new one."""
