"""Routes of long work on the whole gallery: rebuilding, backing up, importing and the like."""

import asyncio
from http import HTTPStatus

from fastapi import APIRouter, Response

from service.api.openapi import job_request, problem_responses, query_request
from service.errors import UnexpectedFieldError
from service.jobs.kinds import job_function
from service.jobs.records import ACTIVE
from service.request.context import RequestContext, json_response
from service.schemas.job_parameters import parse_job
from service.schemas.parameters import NoOptions
from service.schemas.responses import Job, JobAnswer, JobList, JobSummary

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"], responses=problem_responses())


@router.post(
    "",
    summary="Begin a job",
    openapi_extra=job_request(),
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobAnswer,
)
async def begin_job(request: RequestContext) -> Response:
    """Begin long work on the whole gallery; answered at once, ``Location`` says how it goes on."""
    engine = request.engine
    await request.receive_body()
    if request.images:
        raise UnexpectedFieldError("'image' is not a field of this route")
    options = parse_job(request.fields)
    function = await asyncio.to_thread(
        job_function,
        options,
        engine.gallery,
        engine.manifest.architecture,
        backups=engine.settings.backups_dir,
        imports=engine.settings.imports_dir,
    )
    job = await asyncio.to_thread(engine.jobs.start, options.kind, options.recorded(), function)
    answer = _answer(request, job, status=HTTPStatus.ACCEPTED)
    answer.headers["Location"] = f"jobs/{job.id}"  # beside this address, whatever stands before it
    return answer


@router.get("", summary="Jobs", openapi_extra=query_request(NoOptions), response_model=JobList)
async def list_jobs(request: RequestContext) -> Response:
    """List the newest hundred jobs of all workers, the newest first, without their results."""
    engine = request.engine
    await request.receive_options(NoOptions)
    jobs = await asyncio.to_thread(engine.jobs.records.all)
    summaries = [JobSummary(**job.model_dump(exclude={"result"})) for job in jobs]
    return json_response(JobList(request_id=request.id, jobs=summaries))


@router.get(
    "/{job_id}", summary="One job", openapi_extra=query_request(NoOptions), response_model=JobAnswer
)
async def get_job(request: RequestContext, job_id: str) -> Response:
    """Show the progress of a job, and its result."""
    engine = request.engine
    await request.receive_options(NoOptions)
    return _answer(request, await asyncio.to_thread(engine.jobs.records.get, job_id))


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    openapi_extra=query_request(NoOptions),
    response_model=JobAnswer,
    responses={202: {"model": JobAnswer, "description": "It will stop"}},
)
async def cancel_job(request: RequestContext, job_id: str) -> Response:
    """Cancel a job, in whichever worker it runs; one that has ended is left as it is."""
    engine = request.engine
    await request.receive_options(NoOptions)
    job = await asyncio.to_thread(engine.jobs.records.cancel, job_id)
    will_stop = job.state in ACTIVE
    return _answer(request, job, status=HTTPStatus.ACCEPTED if will_stop else HTTPStatus.OK)


def _answer(request: RequestContext, job: Job, *, status: HTTPStatus = HTTPStatus.OK) -> Response:
    answer = JobAnswer(request_id=request.id, **job.model_dump())
    return json_response(answer, status=status)
