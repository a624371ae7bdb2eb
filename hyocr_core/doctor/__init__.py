"""What `hyocr doctor` does: look at the packages, the machine, the plugins and the caches, and say what to mend.

`packages`, `machine`, `loads` and `storage` look at one thing each and yield problems; `examine` puts them together.
"""
