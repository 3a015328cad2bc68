"""Every metric there is: name, type, labels, meaning, and how those of several workers add up.

docs/metrics.md shows this list to operators.
"""

from dataclasses import dataclass
from typing import Final, Literal

_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_STAGE_SECONDS: Final = (0.00025, 0.0005, *_SECONDS)
_IMAGES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric. Counters and histograms are summed over workers, also over those that ended.

    A gauge is that of the workers alive: their sum, the largest, or the one of the worker whose
    view of the gallery is the newest. With the label ``worker`` each worker has its own.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    over_workers: Literal["sum", "max", "newest"] = "sum"
    bounds: tuple[float, ...] = ()  # of a histogram's buckets, increasing; the last, +Inf, is added


_ALL: Final = (
    Measure(
        name="lookalike_requests_total",
        kind="counter",
        labels=("method", "route", "status"),
        text="Requests answered; status 499: the client went away first.",
    ),
    Measure(
        name="lookalike_request_seconds",
        kind="histogram",
        labels=("route",),
        bounds=_SECONDS,
        text="From the request's headers read to the answer's last byte.",
    ),
    Measure(
        name="lookalike_stage_seconds",
        kind="histogram",
        labels=("stage",),
        bounds=_STAGE_SECONDS,
        text="Time in body, search and write, per request; in queue, decode and encode, per image.",
    ),
    Measure(
        name="lookalike_problems_total",
        kind="counter",
        labels=("code",),
        text="Problems by stable code: answers, and single items of answers that went through.",
    ),
    Measure(
        name="lookalike_image_refusals_total",
        kind="counter",
        labels=("code",),
        text="Images that could not be used, by the code of the reason.",
    ),
    Measure(
        name="lookalike_images_total",
        kind="counter",
        text="Images that went through the network.",
    ),
    Measure(
        name="lookalike_batch_images",
        kind="histogram",
        bounds=_IMAGES,
        text="Images that the network took at once.",
    ),
    Measure(
        name="lookalike_received_bytes_total",
        kind="counter",
        text="Bytes of request bodies.",
    ),
    Measure(
        name="lookalike_sent_bytes_total",
        kind="counter",
        text="Bytes of answers, without their headers.",
    ),
    Measure(
        name="lookalike_requests_in_progress",
        kind="gauge",
        text="Requests begun and not answered.",
    ),
    Measure(
        name="lookalike_requests_admitted",
        kind="gauge",
        labels=("queue",),
        text="Requests admitted to decoding, network and gallery, and not answered: quick ones, "
        "and costly ones, which are several images, a large one, or a look at all items.",
    ),
    Measure(
        name="lookalike_requests_admitted_limit",
        kind="gauge",
        labels=("queue",),
        text="How many may be admitted at once; one more is refused as overloaded, unless its "
        "caller has less than an equal share.",
    ),
    Measure(
        name="lookalike_images_in_progress",
        kind="gauge",
        text="Images that wait for a decoder or the network, or are in them.",
    ),
    Measure(
        name="lookalike_jobs_running",
        kind="gauge",
        labels=("kind",),
        text="Jobs that the server is at.",
    ),
    Measure(
        name="lookalike_gallery_items",
        kind="gauge",
        over_workers="newest",
        text="Items in the gallery.",
    ),
    Measure(
        name="lookalike_gallery_seq",
        kind="gauge",
        over_workers="max",
        text="Newest write that the most advanced worker has.",
    ),
    Measure(
        name="lookalike_gallery_seq_lag",
        kind="gauge",
        labels=("worker",),
        text="Writes in the database that this worker had not seen when it looked, once a second.",
    ),
    Measure(
        name="lookalike_gallery_recent_items",
        kind="gauge",
        over_workers="newest",
        text="Items stored since the search structure was built, which every search looks at.",
    ),
    Measure(
        name="lookalike_gallery_generation",
        kind="gauge",
        over_workers="newest",
        text="Generation of the search structure in use; 0: none.",
    ),
    Measure(
        name="lookalike_gallery_generation_age_seconds",
        kind="gauge",
        over_workers="newest",
        text="Since that generation was built; missing while there is none.",
    ),
    Measure(
        name="lookalike_gallery_generation_loaded_timestamp_seconds",
        kind="gauge",
        labels=("worker",),
        text="When this worker last took a generation over, or loaded the gallery; Unix time.",
    ),
    Measure(
        name="lookalike_gallery_read_only",
        kind="gauge",
        over_workers="max",
        text="1 when a worker cannot write: a failed or read-only disk, a moved gallery; else 0.",
    ),
    Measure(
        name="lookalike_model_info",
        kind="gauge",
        labels=("name", "fingerprint", "runtime", "precision", "device"),
        over_workers="max",
        text="1, with what is known of the model in the labels.",
    ),
    Measure(
        name="lookalike_worker_ready",
        kind="gauge",
        labels=("worker",),
        text="1 when this worker answers searches, 0 while it loads, stops, or has failed.",
    ),
    Measure(
        name="lookalike_worker_load_seconds",
        kind="gauge",
        labels=("worker", "stage"),
        text="How long each stage of loading took.",
    ),
    Measure(
        name="lookalike_worker_start_timestamp_seconds",
        kind="gauge",
        labels=("worker",),
        text="When this worker's process began; Unix time.",
    ),
    Measure(
        name="lookalike_worker_uptime_seconds",
        kind="gauge",
        labels=("worker",),
        text="Since this worker's process began.",
    ),
    Measure(
        name="lookalike_worker_resident_bytes",
        kind="gauge",
        labels=("worker",),
        text="Memory of this worker's process that is in RAM.",
    ),
    Measure(
        name="lookalike_worker_threads",
        kind="gauge",
        labels=("worker",),
        text="Threads of this worker's process, those of libraries included.",
    ),
    Measure(
        name="lookalike_worker_open_files",
        kind="gauge",
        labels=("worker",),
        text="Open file descriptors of this worker's process.",
    ),
    Measure(
        name="lookalike_worker_cpu_seconds_total",
        kind="counter",
        labels=("worker",),
        text="CPU time of this worker, those that it replaced included.",
    ),
    Measure(
        name="lookalike_log_lines_dropped_total",
        kind="counter",
        text="Log lines thrown away because standard error was not read fast enough.",
    ),
)

MEASURES: Final[dict[str, Measure]] = {measure.name: measure for measure in _ALL}
