"""Export a chain as OpenLineage events: a START and a COMPLETE for every stage, and then for the registration.

In: a `Chain`. Out: events, in the order of the stages (specification: https://openlineage.io).

DVC does not store times. So all events carry the time of the registration, when every stage had ended. Run ids are
computed from the MLflow run and the stage, so that the same chain gives the same events.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from heartml.lineage.chain import Chain, StageRecord, TrackedPath

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

NAMESPACE, FILES, MODELS = "heartml", "dvc", "mlflow"
_PRODUCER = "urn:heartml"
_SPACE = UUID("6f1b0a52-5d0c-5b8e-9a31-6c2f0d6b7e10")    # name space of the run ids; arbitrary, but never changed


def as_dicts(chain: Chain) -> list[dict[str, Any]]:
    """The events as JSON values."""
    from openlineage.client.serde import Serde

    return [Serde.to_dict(event) for event in events(chain)]


def events(chain: Chain) -> "Iterator[RunEvent]":
    """The events. Each stage comes after the stages that it reads from."""
    from openlineage.client import event_v2 as ol

    when = datetime.fromtimestamp((chain.run.start_ms if chain.run else chain.version.created_ms) / 1000, UTC)
    for stage in chain.stages:
        inputs, outputs = [_input(chain, link) for link in stage.inputs], [_output(chain, x) for x in stage.outputs]
        yield from _pair(ol, when, _run(chain, stage), _job(chain, stage), inputs, outputs)
    files = [_input(chain, link) for stage in chain.stages for link in stage.outputs]
    job = ol.Job(NAMESPACE, f"register {chain.version.name}")
    yield from _pair(ol, when, ol.Run(str(UUID(chain.version.run_id))), job, files, [_model(chain)])


def _pair(ol: Any, when: datetime, run: Any, job: Any, inputs: list[Any], outputs: list[Any]) -> "Iterator[RunEvent]":
    for state in (ol.RunState.START, ol.RunState.COMPLETE):
        yield ol.RunEvent(eventTime=when.isoformat(), producer=_PRODUCER, run=run, job=job, eventType=state,
                          inputs=inputs, outputs=outputs)


def run_id(chain: Chain, stage: StageRecord) -> str:
    """The id of one stage's run in this chain, a UUID."""
    return str(uuid5(_SPACE, f"{chain.version.run_id} {stage.address}"))


def _run(chain: Chain, stage: StageRecord) -> "Run":
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import execution_parameters_run, parent_run

    values = [execution_parameters_run.ExecutionParameter(f"{file}:{name}", name, value=_text(value))
              for file, names in stage.params.items() for name, value in sorted(names.items())]
    parent = parent_run.ParentRunFacet(
        parent_run.Run(str(UUID(chain.version.run_id))), parent_run.Job(NAMESPACE, f"register {chain.version.name}"))
    return ol.Run(run_id(chain, stage), {
        "parent": parent, "executionParameters": execution_parameters_run.ExecutionParametersRunFacet(values)})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _job(chain: Chain, stage: StageRecord) -> "Job":
    """The stage with its command and its code's location: the git commit as a Software Heritage identifier (SWHID)."""
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import job_type_job, source_code_job, source_code_location_job

    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", "DVC", "STAGE"),
        "sourceCode": source_code_job.SourceCodeJobFacet("sh", stage.command),
    }
    if chain.code.commit:
        facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
            "git", f"swh:1:rev:{chain.code.commit}", version=chain.code.commit)
    return ol.Job(NAMESPACE, stage.address, facets)


def _input(chain: Chain, link: TrackedPath) -> "InputDataset":
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    counts = statistics.InputStatisticsInputDatasetFacet(size=link.bytes, fileCount=link.files or 1)
    return ol.InputDataset(FILES, link.path, {"inputStatistics": counts}, facets=_facets(chain, link))


def _output(chain: Chain, link: TrackedPath) -> "OutputDataset":
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    counts = statistics.OutputStatisticsOutputDatasetFacet(size=link.bytes, fileCount=link.files or 1)
    return ol.OutputDataset(FILES, link.path, {"outputStatistics": counts}, facets=_facets(chain, link))


def _model(chain: Chain) -> "OutputDataset":
    from openlineage.client import event_v2 as ol
    from openlineage.client.facet_v2 import dataset_version_dataset as version

    return ol.OutputDataset(MODELS, chain.version.name, facets={
        "version": version.DatasetVersionDatasetFacet(chain.version.number)})


def _facets(chain: Chain, link: TrackedPath) -> dict[str, Any]:
    """Facets of a file: its hash as version, and the columns if it is a table that the chain holds."""
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = {"version": dataset_version_dataset.DatasetVersionDatasetFacet(link.md5)}
    tables = {"data": chain.recordings, f"artifacts/{chain.version.name}/folds.parquet": chain.folds}
    if link.path in tables:
        fields = [schema_dataset.SchemaDatasetFacetFields(str(column), str(kind))
                  for column, kind in tables[link.path].dtypes.items()]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields)
    return facets
