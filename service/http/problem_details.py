"""The one place where an error becomes an HTTP answer: RFC 9457, with a stable code."""

import json
import logging
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from index import errors as index_errors
from service import errors
from service.schemas.query_responses import Failure
from vision import errors as vision_errors

MEDIA_TYPE: Final = "application/problem+json"
logger = logging.getLogger("lookalike.service")

_BAD_REQUEST = HTTPStatus.BAD_REQUEST
_UNPROCESSABLE = HTTPStatus.UNPROCESSABLE_ENTITY
_TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
_HEADERS_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_UNSUPPORTED = HTTPStatus.UNSUPPORTED_MEDIA_TYPE

# An error is answered by its own row, or else by that of its nearest ancestor; without one it is
# ours: 500, a fixed sentence, and the details in the log only.
PROBLEMS: Final[dict[type[Exception], tuple[HTTPStatus, str]]] = {
    errors.MissingImageError: (_BAD_REQUEST, "missing_image"),
    errors.AmbiguousQueryError: (_BAD_REQUEST, "ambiguous_query"),
    errors.UnexpectedFieldError: (_BAD_REQUEST, "unexpected_field"),
    errors.MalformedRequestError: (_BAD_REQUEST, "malformed_request"),
    errors.MalformedMultipartError: (_BAD_REQUEST, "malformed_multipart"),
    errors.InvalidJsonError: (_BAD_REQUEST, "invalid_json"),
    vision_errors.EmptyImageError: (_BAD_REQUEST, "empty_image"),
    errors.UnauthorizedError: (HTTPStatus.UNAUTHORIZED, "unauthorized"),
    errors.ForbiddenError: (HTTPStatus.FORBIDDEN, "forbidden"),
    errors.CrossSiteError: (HTTPStatus.FORBIDDEN, "cross_site"),
    errors.HostNotAllowedError: (HTTPStatus.FORBIDDEN, "host_not_allowed"),
    index_errors.UnknownIdError: (HTTPStatus.NOT_FOUND, "unknown_id"),
    index_errors.NoThumbnailError: (HTTPStatus.NOT_FOUND, "no_image"),
    errors.UnknownJobError: (HTTPStatus.NOT_FOUND, "unknown_job"),
    errors.NotFoundError: (HTTPStatus.NOT_FOUND, "not_found"),
    errors.MethodNotAllowedError: (HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed"),
    errors.SlowRequestError: (HTTPStatus.REQUEST_TIMEOUT, "request_timeout"),
    errors.IdConflictError: (HTTPStatus.CONFLICT, "id_conflict"),
    errors.NoClassesError: (HTTPStatus.CONFLICT, "no_classes"),
    errors.JobConflictError: (HTTPStatus.CONFLICT, "job_conflict"),
    errors.NoBackupsFolderError: (HTTPStatus.CONFLICT, "no_backups_folder"),
    errors.NoImportsFolderError: (HTTPStatus.CONFLICT, "no_imports_folder"),
    errors.BackupExistsError: (HTTPStatus.CONFLICT, "backup_exists"),
    index_errors.RebuildBusyError: (HTTPStatus.CONFLICT, "rebuild_busy"),
    index_errors.ChangedItemError: (HTTPStatus.PRECONDITION_FAILED, "precondition_failed"),
    errors.BodyTooLargeError: (_TOO_LARGE, "payload_too_large"),
    vision_errors.TooManyBytesError: (_TOO_LARGE, "payload_too_large"),
    errors.UrlTooLongError: (HTTPStatus.REQUEST_URI_TOO_LONG, "url_too_long"),
    errors.HeadersTooLargeError: (_HEADERS_TOO_LARGE, "headers_too_large"),
    errors.UnsupportedBodyError: (_UNSUPPORTED, "unsupported_image_type"),
    vision_errors.UnsupportedImageError: (_UNSUPPORTED, "unsupported_image_type"),
    vision_errors.CorruptImageError: (_UNPROCESSABLE, "corrupt_image"),
    vision_errors.TooManyPixelsError: (_UNPROCESSABLE, "too_many_pixels"),
    vision_errors.CostlyImageError: (_UNPROCESSABLE, "too_many_pixels"),
    vision_errors.CropError: (_UNPROCESSABLE, "invalid_parameter"),
    errors.InvalidKError: (_UNPROCESSABLE, "invalid_k"),
    errors.InvalidKindError: (_UNPROCESSABLE, "invalid_kind"),
    errors.ListTooLongError: (_UNPROCESSABLE, "list_too_long"),
    errors.InvalidParameterError: (_UNPROCESSABLE, "invalid_parameter"),
    index_errors.FilterError: (_UNPROCESSABLE, "invalid_filter"),
    index_errors.InvalidIdError: (_UNPROCESSABLE, "invalid_id"),
    index_errors.BadVectorsError: (_UNPROCESSABLE, "invalid_vector"),
    index_errors.SourceError: (_UNPROCESSABLE, "invalid_source"),
    index_errors.InvalidMetadataError: (_UNPROCESSABLE, "invalid_parameter"),
    index_errors.GroupKeyError: (_UNPROCESSABLE, "invalid_parameter"),
    index_errors.InvalidCursorError: (_UNPROCESSABLE, "invalid_parameter"),
    errors.TooManyRequestsError: (HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests"),
    errors.OverloadedError: (HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"),
    errors.TimedOutError: (HTTPStatus.SERVICE_UNAVAILABLE, "timed_out"),
    errors.NotReadyError: (HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"),
    errors.NetworkLostError: (HTTPStatus.SERVICE_UNAVAILABLE, "not_ready"),
    errors.StoppingError: (HTTPStatus.SERVICE_UNAVAILABLE, "stopping"),
    errors.StuckError: (HTTPStatus.SERVICE_UNAVAILABLE, "stuck"),
    errors.JobInterruptedError: (HTTPStatus.SERVICE_UNAVAILABLE, "job_interrupted"),
    vision_errors.DeviceMemoryError: (HTTPStatus.SERVICE_UNAVAILABLE, "out_of_memory"),
    vision_errors.DeviceLostError: (HTTPStatus.SERVICE_UNAVAILABLE, "device_lost"),
    index_errors.ImportEndedError: (HTTPStatus.SERVICE_UNAVAILABLE, "job_interrupted"),
    index_errors.RebuildError: (HTTPStatus.SERVICE_UNAVAILABLE, "rebuild_failed"),
    index_errors.StorageError: (HTTPStatus.SERVICE_UNAVAILABLE, "storage_failed"),
    index_errors.ReadOnlyError: (HTTPStatus.SERVICE_UNAVAILABLE, "read_only"),
    index_errors.DiskFullError: (HTTPStatus.INSUFFICIENT_STORAGE, "disk_full"),
}

_INTERNAL = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal")
_INTERNAL_SENTENCE = "something went wrong on our side; the request id finds it in the log"
_RETRY_AFTER_STORAGE_S = 30


def find_problem(error: Exception) -> tuple[HTTPStatus, str]:
    """Return the status and code of ``error``: its own row, or that of its nearest ancestor."""
    for ancestor in type(error).__mro__:
        if ancestor in PROBLEMS:
            return PROBLEMS[ancestor]
    return _INTERNAL


def to_failure(error: Exception) -> Failure:
    """Return what is said of a failed item or job."""
    status, code = find_problem(error)
    if (status, code) == _INTERNAL:
        logger.error("unexpected error in one of many items, or in a job", exc_info=error)
        return Failure(status=int(status), code=code, detail=_INTERNAL_SENTENCE)
    return Failure(status=int(status), code=code, detail=str(error))


def problem_response(error: Exception, *, request_id: str) -> Response:
    """Return the whole answer for ``error``; an unexpected one is logged and answered with 500."""
    status, code = find_problem(error)
    detail = str(error)
    if (status, code) == _INTERNAL:
        logger.error("unexpected error, request %s", request_id, exc_info=error)
        detail = _INTERNAL_SENTENCE
    body = {
        "type": f"urn:lookalike:problem:{code}",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if isinstance(error, errors.NotReadyError) and error.checks is not None:
        body["checks"] = error.checks
    headers = {}
    if isinstance(error, errors.RetryableError):
        headers["Retry-After"] = str(error.retry_after_s)
    elif status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE):
        headers["Retry-After"] = str(_RETRY_AFTER_STORAGE_S)
    if isinstance(error, errors.MethodNotAllowedError):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.UnsupportedBodyError) and error.accepts is not None:
        headers.update([error.accepts])
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.REQUEST_TIMEOUT, _TOO_LARGE):
        headers["Connection"] = "close"  # the rest of the body is not worth reading
    return Response(json.dumps(body), int(status), headers, MEDIA_TYPE)
