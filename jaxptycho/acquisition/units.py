"""Units of microscopes, jobs and reports in those of the calculation, Å."""

ANGSTROM_PER_UM = 1e4
ANGSTROM_PER_NM = 10.0
