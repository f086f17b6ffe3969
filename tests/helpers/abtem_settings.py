"""Settings of abTEM for comparisons."""

EXACT = {
    "precision": "float64",
    "fft": "numpy",
    "dask.lazy": False,
    "diagnostics.progress_bar": False,
    "antialias.taper": 0.0,
}
