"""What can be wrong with a request, beside the image (vision) and the gallery (index).

RequestError                     the caller's
├── MissingImageError            no image came, and nothing else to go by
├── AmbiguousQueryError          two sources where one is needed
├── UnexpectedFieldError         a field that this route does not know
├── MalformedMultipartError      the multipart body cannot be read
├── InvalidJsonError             the JSON body cannot be read, or a member has the wrong type
├── UnsupportedBodyError         the body is neither an image, a form nor JSON
├── InvalidParameterError        a parameter is of the wrong type or out of range
│   ├── InvalidKError            k
│   └── InvalidKindError         kind, or this model has no knob
├── ListTooLongError             a list of more elements than one request may have
├── NoClassesError               the model has learnt no classes
├── UnauthorizedError            no key, or a wrong one
├── ForbiddenError               a key without this right
├── CrossSiteError               a page of another site would change something
├── HostNotAllowedError          a host that this server does not go by
├── IdConflictError              the id holds other content and was not to be replaced
├── JobConflictError             a job that would be in the way of this one has not ended
├── UnknownJobError              no job has this id
├── NoBackupsFolderError         the operator has named no folder for backups
├── BackupExistsError            there is a backup of this name
├── SlowRequestError             the request, or its body, came too slowly
├── BodyTooLargeError            the body is larger than allowed
├── MalformedRequestError        what came is not HTTP/1.1, or a query that is not UTF-8
├── UrlTooLongError              the path and query are too long
├── HeadersTooLargeError         too many header fields, or too many bytes of them
├── NotFoundError                no such route
├── MethodNotAllowedError        the route exists, but not with this method
└── RetryableError               the same request may go through later
    ├── TooManyRequestsError     the key's quota is used up
    ├── OverloadedError          the worker has as much to do as it may
    ├── TimedOutError            the work took too long and was given up
    ├── JobInterruptedError      the process that ran the job ended before the job did
    └── NotReadyError            still loading, or the wanted seq is not reached yet
        ├── NetworkLostError     the process with the network has ended
        ├── StoppingError        the service was told to stop
        └── StuckError           work of the service does not end; it needs a restart
ServiceConfigError               ours: a setting or a file of the service cannot be used
└── SettingError                 a setting has a value that it cannot have
"""


class RequestError(Exception):
    """Base of the errors that a client's request brought about."""


class MissingImageError(RequestError):
    """No image came."""


class AmbiguousQueryError(RequestError):
    """Two sources came where one is needed."""


class UnexpectedFieldError(RequestError):
    """A field came that this route does not know."""


class MalformedMultipartError(RequestError):
    """The multipart body cannot be read."""


class InvalidJsonError(RequestError):
    """The JSON body cannot be read, or a member has the wrong type."""


class UnsupportedBodyError(RequestError):
    """The body is neither an image, a form nor JSON; ``accepts`` is a header that says what is."""

    def __init__(self, sentence: str, *, accepts: tuple[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.accepts = accepts


class InvalidParameterError(RequestError):
    """A parameter is of the wrong type or out of range."""


class InvalidKError(InvalidParameterError):
    """``k`` is not a whole number in range."""


class InvalidKindError(InvalidParameterError):
    """``kind`` is no number in range, or this model's vectors have one part only."""


class ListTooLongError(RequestError):
    """A list has more elements than one request may have."""


class NoClassesError(RequestError):
    """The model has learnt no classes."""


class UnauthorizedError(RequestError):
    """No API key came, or a wrong one."""


class ForbiddenError(RequestError):
    """The API key has no right to this."""


class CrossSiteError(RequestError):
    """A page of another site would have a browser change something, unasked."""


class HostNotAllowedError(RequestError):
    """The request is for a host that this server does not go by."""


class IdConflictError(RequestError):
    """The id holds other content and was not to be replaced."""


class JobConflictError(RequestError):
    """A job that would be in the way of this one has not ended."""


class UnknownJobError(RequestError):
    """No job has this id."""


class NoBackupsFolderError(RequestError):
    """The operator has named no folder for backups."""


class NoImportsFolderError(RequestError):
    """The operator has named no folder from which files are imported."""


class BackupExistsError(RequestError):
    """There is a backup of this name."""


class SlowRequestError(RequestError):
    """The request, or its body, came too slowly."""


class BodyTooLargeError(RequestError):
    """The body is larger than allowed."""


class MalformedRequestError(RequestError):
    """What came is not HTTP/1.1, or its query is not UTF-8."""


class UrlTooLongError(RequestError):
    """The path and query are too long."""


class HeadersTooLargeError(RequestError):
    """There are too many header fields, or too many bytes of them."""


class NotFoundError(RequestError):
    """There is no such route."""


class MethodNotAllowedError(RequestError):
    """The route exists, but not with this method; ``allowed`` are those it takes."""

    def __init__(self, sentence: str, *, allowed: list[str]) -> None:
        super().__init__(sentence)
        self.allowed = allowed


class RetryableError(RequestError):
    """The same request may go through later."""

    def __init__(self, sentence: str, *, retry_after_s: int = 1) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class TooManyRequestsError(RetryableError):
    """The key's quota is used up."""


class OverloadedError(RetryableError):
    """The worker has as much to do, or to hold, as it may."""


class TimedOutError(RetryableError):
    """The work on the request took too long and was given up."""


class JobInterruptedError(RetryableError):
    """The process that ran the job ended before the job did."""


class NotReadyError(RetryableError):
    """The model or the gallery is still loading, or the wanted ``seq`` is not reached yet."""

    def __init__(
        self, sentence: str, *, retry_after_s: int = 1, checks: dict[str, str] | None = None
    ) -> None:
        super().__init__(sentence, retry_after_s=retry_after_s)
        self.checks = checks  # what a probe is told: a name, and "ok" or why not


class NetworkLostError(NotReadyError):
    """The process with the network has ended; another is on its way."""


class StoppingError(NotReadyError):
    """The service was told to stop."""


class StuckError(NotReadyError):
    """Work of the service does not end; it needs a restart."""


class ServiceConfigError(Exception):
    """A setting or a file of the service cannot be used."""


class SettingError(ServiceConfigError):
    """A setting has a value that it cannot have."""
