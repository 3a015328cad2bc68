"""Long work in the background: records, a runner, and each kind of job."""
