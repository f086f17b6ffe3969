"""Operations on planes, by name: their operands, and their results where these are not one wave.

A wave has several planes for each plane of a factor or kernel, whose leading axes are the first
ones of the wave's. `reference` computes each of them in `jax.numpy`.
"""

OPERANDS = {
    "fft2": ("wave",),
    "ifft2": ("wave",),
    "convolve": ("wave", "kernel"),
    "correlate": ("wave", "kernel"),
    "step": ("wave", "factor", "kernel"),
    "step_back": ("wave", "factor", "kernel", "entered"),
    "diffract": ("wave", "factor"),
    "diffract_back": ("wave", "factor", "entered"),
}
RESULTS = {"step_back": ("wave", "factor"), "diffract_back": ("wave", "factor")}


def results(kind: str) -> tuple[str, ...]:
    """Names of the operands that have the shapes of the results."""
    return RESULTS.get(kind, ("wave",))
