"""What S3 and boto3 say, translated once and totally into the errors of the project.

The rule for a write: an answer that proves that nothing landed is a StorageError; any other failure,
known or not, is an OutcomeUnknownError, because boto3 may have retried a request that had landed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from archiver.errors import (
    CorruptDataError,
    InputError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    SessionLakeError,
    StorageError,
)

_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload", "NotFound", "404"})
_TRANSIENT: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
CREDENTIALS_HINT: Final = "renew the credentials that boto3 finds (environment, ~/.aws, instance role)"
_DENIED_HINT: Final = "compare the permissions with configs/iam-policy.json"
_REGION_HINT: Final = "set storage.region to the bucket's region"
_HINTS: Final = {
    "NoSuchBucket": "create the bucket or correct storage.url",
    "AccessDenied": _DENIED_HINT,
    "AllAccessDisabled": _DENIED_HINT,
    "403": f"{_DENIED_HINT}; without s3:ListBucket a missing object is answered like this too",
    "AuthorizationHeaderMalformed": _REGION_HINT,
    "PermanentRedirect": _REGION_HINT,
    "301": _REGION_HINT,
    "ExpiredToken": CREDENTIALS_HINT,
    "InvalidAccessKeyId": CREDENTIALS_HINT,
    "InvalidToken": CREDENTIALS_HINT,
    "SignatureDoesNotMatch": CREDENTIALS_HINT,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "InvalidObjectState": "the object lies in an archive tier: bring it back with the provider's tools first",
    "NotImplemented": "this server lacks what the archive needs: run sessionlake doctor",
    "BadDigest": "the bytes were damaged on their way and refused: try again",
    "SlowDown": "the storage asks for fewer requests: try again later",
}
_TRY_AGAIN: Final = "the storage cannot answer now: try again later"


def is_precondition_failed(error: ClientError) -> bool:
    """Whether an If-Match or If-None-Match was not met, perhaps by this request's own first try."""
    return _status(error) == 412


def is_absent(error: ClientError) -> bool:
    """Whether the object or upload (not the bucket) is not there."""
    return _code(error) in _ABSENT


def is_range_unsatisfiable(error: ClientError) -> bool:
    """Whether the object ends before the wanted range."""
    return _status(error) == 416


def is_refusal(error: ClientError) -> bool:
    """Whether the request itself was found wrong."""
    return _status(error) == 400


def hint_of(code: str) -> str:
    """What to do about an error code."""
    return _HINTS.get(code, "run sessionlake doctor")


@contextmanager
def translated(operation: str, key: str, *, writes: bool = False) -> Iterator[None]:
    """Turn everything boto3 can raise into one of our errors."""
    try:
        yield
    except ClientError as error:
        raise from_answer(error, operation, key, writes=writes) from error
    except (BotoCoreError, HTTPError) as error:
        raise _without_answer(error, operation, key, writes=writes) from error
    except (ResponseParserError, KeyError, ValueError) as error:  # a damaged answer breaks its reader in many ways
        kind = OutcomeUnknownError if writes else StorageError
        raise kind("the answer cannot be read", operation=operation, key=key, hint=_TRY_AGAIN) from error


def from_answer(error: ClientError, operation: str, key: str, *, writes: bool) -> SessionLakeError:
    """The error for an answer that says no; the server's own words are left out, they may quote a key id."""
    code, status = _code(error), _status(error)
    message = f"the storage answered {status} {code}" if code != str(status) else f"the storage answered {status}"
    if is_absent(error):
        return ObjectNotFoundError("no such object", operation=operation, key=key)
    if status == 416:
        return CorruptDataError("ends before the wanted range", operation=operation, key=key)
    if code in _TRANSIENT or status in {409, 412, 429} or (status >= 500 and status != 501):
        kind = OutcomeUnknownError if writes else StorageError
        return kind(message, operation=operation, key=key, hint=_HINTS.get(code, _TRY_AGAIN))
    return StorageError(message, operation=operation, key=key, hint=hint_of(code))


def _without_answer(error: Exception, operation: str, key: str, *, writes: bool) -> SessionLakeError:
    text = str(error)
    if isinstance(error, FlexibleChecksumError):
        return CorruptDataError("bytes do not match their checksum", operation=operation, key=key)
    if isinstance(error, ParamValidationError):
        return InputError(text, operation=operation, key=key)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | TokenRetrievalError):
        return StorageError(f"no usable credentials: {text}", operation=operation, key=key, hint=CREDENTIALS_HINT)
    kind = OutcomeUnknownError if writes else StorageError
    hint = "check storage.endpoint_url and the network, then try again"
    return kind(f"no answer: {text}", operation=operation, key=key, hint=hint)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
