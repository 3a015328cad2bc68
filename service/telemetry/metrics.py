"""Every metric there is: its name, kind, labels and meaning, as docs/metrics.md lists them.

``worker_metrics.py`` counts, and ``shared_metrics.py`` adds up the workers.
"""

from dataclasses import dataclass
from typing import Final, Literal

Labels = tuple[str, ...]  # values, in the order of the metric's label names
Values = list[float]  # one; of a histogram: how many per bucket, the last +Inf, then the sum
Series = dict[Labels, Values]
MetricsSnapshot = dict[str, Series]  # by the metric's name

NO_LABELS: Final[Labels] = ()
REQUEST_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
STAGE_BOUNDS: Final = (0.00025, 0.0005, *REQUEST_BOUNDS)
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. Counters and histograms are summed over workers, also over those that ended.

    A gauge is that of the workers alive: their sum, the largest, or the one of the worker whose
    view of the gallery is the newest. With the label ``worker`` each worker has its own.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # of a histogram's buckets, increasing; the last, +Inf, is added
    over_workers: Literal["sum", "max", "newest"] = "sum"

    @property
    def kind(self) -> Literal["counter", "gauge", "histogram"]:
        """What Prometheus calls its type: names of counters end in ``_total``."""
        if self.bounds:
            return "histogram"
        return "counter" if self.name.endswith("_total") else "gauge"


_ALL: Final = (
    MetricSpec(
        "lookalike_build_info",
        "1, with the version of the service in the label.",
        labels=("version",),
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_requests_total",
        "Requests answered; status 499: the client went away first.",
        labels=("method", "route", "status"),
    ),
    MetricSpec(
        "lookalike_request_seconds",
        "From the request's headers read to the answer's last byte.",
        labels=("route",),
        bounds=REQUEST_BOUNDS,
    ),
    MetricSpec(
        "lookalike_stage_seconds",
        "Time in body, search and write, per request; in queue, decode and encode, per image.",
        labels=("stage",),
        bounds=STAGE_BOUNDS,
    ),
    MetricSpec(
        "lookalike_problems_total",
        "Problems by stable code: answers, and single items of answers that went through.",
        labels=("code",),
    ),
    MetricSpec(
        "lookalike_image_refusals_total",
        "Images that could not be used, by the code of the reason.",
        labels=("code",),
    ),
    MetricSpec("lookalike_images_total", "Images that went through the network."),
    MetricSpec(
        "lookalike_batch_images", "Images that the network took at once.", bounds=BATCH_BOUNDS
    ),
    MetricSpec(
        "lookalike_encoder_busy_seconds_total",
        "Time in which networks had a batch to compute, summed over all that there are.",
    ),
    MetricSpec(
        "lookalike_encoders",
        "Processes with a network that is ready: each worker, or one for all of them.",
    ),
    MetricSpec(
        "lookalike_encoder_start_timestamp_seconds",
        "When the process with the network of all workers had loaded it; Unix time.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_encoder_resident_bytes",
        "Memory of the process with the network of all workers that is in RAM.",
        over_workers="max",
    ),
    MetricSpec("lookalike_received_bytes_total", "Bytes of request bodies."),
    MetricSpec("lookalike_sent_bytes_total", "Bytes of answers, without their headers."),
    MetricSpec("lookalike_requests_in_progress", "Requests begun and not answered."),
    MetricSpec(
        "lookalike_requests_admitted",
        "Requests admitted to decoding, network and gallery, and not answered: quick ones, "
        "and costly ones, which are several images, a large one, or a look at all items.",
        labels=("queue",),
    ),
    MetricSpec(
        "lookalike_requests_admitted_limit",
        "How many may be admitted at once; one more is refused as overloaded, unless its "
        "caller has less than an equal share.",
        labels=("queue",),
    ),
    MetricSpec(
        "lookalike_images_in_progress",
        "Images that wait for a decoder or the network, or are in them.",
    ),
    MetricSpec(
        "lookalike_jobs_running",
        "Jobs that the server is at.",
        labels=("kind",),
    ),
    MetricSpec(
        "lookalike_jobs_ended_total",
        "Jobs that have ended; state: done, failed or cancelled.",
        labels=("kind", "state"),
    ),
    MetricSpec(
        "lookalike_gallery_items",
        "Items in the gallery.",
        over_workers="newest",
    ),
    MetricSpec(
        "lookalike_gallery_seq",
        "Newest write that the most advanced worker has.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_gallery_seq_lag",
        "Writes in the database that this worker had not seen when it looked, once a second.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_gallery_recent_items",
        "Items stored since the search structure was built, which every search looks at.",
        over_workers="newest",
    ),
    MetricSpec(
        "lookalike_gallery_generation",
        "Generation of the search structure in use; 0: none.",
        over_workers="newest",
    ),
    MetricSpec(
        "lookalike_gallery_generation_age_seconds",
        "Since that generation was built; missing while there is none.",
        over_workers="newest",
    ),
    MetricSpec(
        "lookalike_gallery_generation_loaded_timestamp_seconds",
        "When this worker last took a generation over, or loaded the gallery; Unix time.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_gallery_read_only",
        "1 when a worker cannot write: a failed or read-only disk, a moved gallery; else 0.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_gallery_upkeep_failing",
        "1 when the search structure could not be brought up to date; the log says why; else 0.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_gallery_disk_size_bytes",
        "Size of the file system that the gallery is on.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_gallery_disk_free_bytes",
        "What of that the service may still fill.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_key_file_failing",
        "1 when the changed key file cannot be used, and the keys before stay valid; else 0; "
        "missing without a key file.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_model_info",
        "1, with what is known of the model in the labels.",
        labels=("name", "fingerprint", "runtime", "precision", "device"),
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_workers_expected",
        "Workers that there are to be.",
        over_workers="max",
    ),
    MetricSpec(
        "lookalike_worker_ready",
        "1 when this worker answers searches, 0 while it loads, stops, or has failed.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_load_seconds",
        "How long each stage of loading took.",
        labels=("worker", "stage"),
    ),
    MetricSpec(
        "lookalike_worker_start_timestamp_seconds",
        "When this worker's process began; Unix time.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_uptime_seconds",
        "Since this worker's process began.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_resident_bytes",
        "Memory of this worker's process that is in RAM.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_threads",
        "Threads of this worker's process, those of libraries included.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_open_files",
        "Open file descriptors of this worker's process.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_worker_cpu_seconds_total",
        "CPU time of this worker, those that it replaced included.",
        labels=("worker",),
    ),
    MetricSpec(
        "lookalike_log_lines_dropped_total",
        "Log lines thrown away because standard error was not read fast enough.",
    ),
)

METRICS: Final[dict[str, MetricSpec]] = {spec.name: spec for spec in _ALL}
