"""Mask secrets in output, logs, errors and files, by the name of a key or the form of the text."""

import argparse
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn

MASK = "***"
_NAMES = (
    r"\w*(?:secret|passw(?:or)?d|passphrase|credential|authorization|connection_?string)\w*"
    r"|(?:\w*_)?(?:api|access|private|account|gcs)[_-]?keys?"
    r"|(?:\w*_)?(?:api|auth|oauth|access|refresh|hub|hf|sas|bearer|session|security|wandb|github|gitlab|databricks)[_-]?tokens?"
    r"|token"
)
_CREDENTIAL = re.compile(_NAMES, re.IGNORECASE)
# Environment variables are not named after a tokenizer's tokens, so every key and token counts.
_ENVIRONMENT = re.compile(r"(^|_)(KEY|TOKEN|PAT)$", re.IGNORECASE)
_SHORTEST = 8  # shorter values of the environment occur in too many words to mask them
_LOOKS = (
    # user:password@ of any URL, up to the last @ of the host part; of http also a bare token@
    re.compile(r"(?<=://)[^/\s:]+:[^/\s]*(?=@)|(?<=https://)[^/\s]+(?=@)|(?<=http://)[^/\s]+(?=@)"),
    # signed URLs (S3, GCS, Azure) and connection strings
    re.compile(
        r"(?<![\w-])(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|sig|access_token|token)=[^&\s'\"]+",
        re.IGNORECASE,
    ),
    re.compile(r"\b(?:AccountKey|SharedAccessSignature)=[^;\s'\"]+"),
    re.compile(r"(?i:\bbearer\s+)[A-Za-z0-9._~+/-]{8,}=*"),
    # tokens with a known prefix: Hugging Face, AWS, GitHub, GitLab, Slack, JWT
    re.compile(
        r"\bhf_[A-Za-z0-9]{20,}|\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bglpat-[\w-]{20,}"
    ),
    re.compile(r"\bxox[abprs]-[\w-]{10,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"),
    # key=value, and {key: value} as YAML or Python prints it; not `key: sentence`
    re.compile(rf"(?<![\w-])-{{0,2}}(?:{_NAMES})=[^\s&;,'\"]+", re.IGNORECASE),
    re.compile(
        rf"""(?<=[{{'"])(?:{_NAMES})['"]?: ?[^\s,}}]+|(?<=, )(?:{_NAMES}): [^\s,}}]+""",
        re.IGNORECASE,
    ),
    re.compile(
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
    ),
)


def masked_text(text: str) -> str:
    """Replace what looks like a credential, and every secret of the environment, with ``***``.

    A secret of the environment is the value of a variable with a telling name, such as
    ``AWS_SECRET_ACCESS_KEY``, ``HF_TOKEN`` or ``WANDB_API_KEY``. It has at least 8 characters and
    is not the path of a file.
    """
    for value in sorted(_environment_secrets(), key=len, reverse=True):
        text = text.replace(value, MASK)
    for look in _LOOKS:
        text = look.sub(MASK, text)
    return text


def masked(value: Any, key: str = "") -> Any:
    """Copy a plain value: ``***`` under keys named like credentials, ``masked_text`` elsewhere."""
    if value is not None and not isinstance(value, bool) and _CREDENTIAL.fullmatch(key):
        return MASK
    if isinstance(value, Mapping):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return masked_text(value) if isinstance(value, str) else value


class MaskedParser(argparse.ArgumentParser):
    """An ArgumentParser that masks secrets in its errors."""

    def error(self, message: str) -> NoReturn:
        """Print the masked message and exit with 2."""
        super().error(masked_text(message))


def mask_process() -> None:
    """Mask this process's log records and final traceback; for commands, not for the library."""
    sys.excepthook = print_masked
    logging.setLogRecordFactory(masked_record)


def masked_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """Make a log record with a masked message and traceback."""
    record = logging.LogRecord(*args, **kwargs)
    try:
        record.msg, record.args = masked_text(record.getMessage()), ()
    except (TypeError, ValueError):
        return record  # the arguments do not fit the message; logging reports that itself
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = masked_text(
            "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        )
    return record


def print_masked(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print a masked traceback, as a ``sys.excepthook``."""
    sys.stderr.write(masked_text("".join(traceback.format_exception(kind, error, trace))))


def _environment_secrets() -> set[str]:
    return {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST
        and (_CREDENTIAL.fullmatch(name) or _ENVIRONMENT.search(name))
        and not os.path.exists(value)
    }
