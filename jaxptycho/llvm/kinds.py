"""What is computed of planes, by name: operands, and `RESULTS` where they are not one wave.

A wave has several planes for each plane of a factor or kernel, whose leading axes are the first ones of the wave's.
"""

OPERANDS = {
    "fft": ("wave",),
    "ifft": ("wave",),
    "convolve": ("wave", "kernel"),  # F⁻¹[kernel · F wave]
    "correlate": ("wave", "kernel"),  # F[kernel · F⁻¹ wave], its transpose
    "step": ("wave", "factor", "kernel"),  # F⁻¹[kernel · F(factor · wave)]
    "step_back": ("wave", "factor", "kernel", "entered"),  # of c, the correlate: factor · c, and Σ entered · c
    "diffract": ("wave", "factor"),  # F(factor · wave)
    "diffract_back": ("wave", "factor", "entered"),  # of c, the transform: factor · c, and Σ entered · c
}
RESULTS = {"step_back": ("wave", "factor"), "diffract_back": ("wave", "factor")}


def results(kind: str) -> tuple[str, ...]:
    """Names of the operands that the results look like."""
    return RESULTS.get(kind, ("wave",))
