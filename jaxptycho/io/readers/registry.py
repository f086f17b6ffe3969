"""Formats of camera files, in the order in which they are tried."""

from collections.abc import Callable
from typing import NamedTuple

from .blockfile import is_blockfile, read_blockfile
from .dectris import is_master, read_master
from .emd import is_emd, read_emd
from .empad import is_empad, read_empad
from .hdf5_arrays import is_array_file, is_fold_slice, read_array_file, read_fold_slice
from .hyperspy_files import is_hspy, is_zspy, read_hspy, read_zspy
from .incomplete import is_incomplete, read_incomplete
from .matlab import is_matlab, read_matlab
from .mib import is_mib, read_mib
from .nexus import is_nexus, read_nexus
from .plain_files import is_numpy, is_raw, read_numpy, read_raw
from .ptyd import is_ptyd, read_ptyd
from .reading import Reading
from .rosetta import is_of_rosetta, read_by_rosetta
from .source import Source
from .stream import is_stream, read_stream
from .tiff import is_tiff, read_tiff


class Format(NamedTuple):
    """Test of a source, and the function that reads it; its keywords are options of the format."""

    recognises: Callable[[Source], bool]
    read: Callable[..., Reading]  # (path, **options)


FORMATS: dict[str, Format] = {
    "converted": Format(is_incomplete, read_incomplete),
    "stream": Format(is_stream, read_stream),
    "mib": Format(is_mib, read_mib),
    "empad": Format(is_empad, read_empad),
    "blo": Format(is_blockfile, read_blockfile),
    "dectris": Format(is_master, read_master),
    "hspy": Format(is_hspy, read_hspy),
    "zspy": Format(is_zspy, read_zspy),
    "emd": Format(is_emd, read_emd),
    "ptyd": Format(is_ptyd, read_ptyd),
    "nexus": Format(is_nexus, read_nexus),
    "fold_slice": Format(is_fold_slice, read_fold_slice),
    "matlab": Format(is_matlab, read_matlab),
    "npy": Format(is_numpy, read_numpy),
    "tiff": Format(is_tiff, read_tiff),
    "rosettasciio": Format(is_of_rosetta, read_by_rosetta),
    "hdf5": Format(is_array_file, read_array_file),
    "raw": Format(is_raw, read_raw),
}
