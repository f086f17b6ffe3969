"""Commands of SerialEM that its simulation has, with their arguments.

By the keys of its list of commands: D number, I integer, S text; small letters are optional.
"""

from typing import Any

SIGNATURES = {
    "AddToAutodoc": "SS",
    "AdjustBeamTiltforIS": "",
    "AlignTo": "Siiiidddi",
    "AreDewarsFilling": "",
    "AutoFocus": "ii",
    "BackgroundTilt": "Dd",
    "CameraToSpecimenMatrix": "I",
    "ChangeFocus": "D",
    "ClearStatusLine": "I",
    "CloseFile": "s",
    "Copy": "SS",
    "Delay": "Ds",
    "Echo": "s",
    "Eucentricity": "i",
    "Exit": "ds",
    "G": "ii",
    "GetVariable": "S",
    "GoToLowDoseArea": "S",
    "ISToSpecimenMatrix": "I",
    "ImageProperties": "s",
    "ImageShiftByMicrons": "DDdi",
    "ImageShiftByUnits": "DDdi",
    "IsVariableDefined": "S",
    "IsVersionAtLeast": "Ss",
    "KeyBreak": "s",
    "L": "",
    "LimitNextAutoAlign": "D",
    "MoveStage": "DDd",
    "MoveStageTo": "DDd",
    "NoMessageBoxOnError": "i",
    "OpenNewFile": "S",
    "Pause": "s",
    "R": "",
    "Record": "",
    "ReportAlignShift": "",
    "ReportAutoFocus": "",
    "ReportClock": "",
    "ReportColumnOrGunValve": "",
    "ReportDefocus": "",
    "ReportFileZsize": "",
    "ReportISforBufferShift": "",
    "ReportImageShift": "",
    "ReportMag": "",
    "ReportMaxImageShift": "I",
    "ReportMeanCounts": "si",
    "ReportSpecimenShift": "",
    "ReportStageBusy": "",
    "ReportStageXYZ": "",
    "ReportTiltAngle": "",
    "ReportTiltAxisOffset": "",
    "ResetClock": "",
    "RestoreBeamTilt": "",
    "S": "si",
    "Save": "si",
    "SetBeamBlank": "I",
    "SetColumnOrGunValve": "I",
    "SetDefocus": "D",
    "SetImageShift": "DDdi",
    "SetPersistentVar": "SS",
    "SetStatusLine": "IS",
    "SetTargetDefocus": "D",
    "SetTiltAxisOffset": "D",
    "SetVariable": "SS",
    "SpecimenToCameraMatrix": "I",
    "SpecimenToISMatrix": "I",
    "StageToSpecimenMatrix": "I",
    "SuppressReports": "i",
    "T": "",
    "TiltBy": "Didd",
    "TiltTo": "Didd",
    "TiltUp": "idd",
    "Trial": "",
    "V": "",
    "View": "",
    "WriteAutodoc": "",
}
KINDS = {"D": (int, float), "I": (int,), "S": (str,)}


def check_arguments(name: str, arguments: tuple[Any, ...]) -> None:
    """TypeError for arguments that are too few, too many, or of another type."""
    keys = SIGNATURES[name]
    required = sum(key.isupper() for key in keys)
    if not required <= len(arguments) <= len(keys):
        raise TypeError(
            f"{name} takes {required} to {len(keys)} arguments, and was given {len(arguments)}"
        )
    for key, value in zip(keys, arguments, strict=False):
        kinds = KINDS[key.upper()]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name}: {kinds[-1].__name__} is required, not {value!r}")
