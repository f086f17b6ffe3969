"""Microscopes that acquire: the protocol, its calibration by test moves, a simulated one."""
