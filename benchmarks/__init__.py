"""Measurements that the project rests on; not part of the package. Each program prints a table and writes JSON."""
