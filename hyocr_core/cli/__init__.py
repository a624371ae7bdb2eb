"""The commands, one file each: parsing only."""
