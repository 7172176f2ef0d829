"""report: what the page shows."""

from pydantic import Field

from stages.core.params import Section


class ReportParams(Section):
    title: str = Field("darkroom", description="of the page")
    rejected_examples: int = Field(8, ge=0, le=100, description="pictures shown for each reason")
    kept_examples: int = Field(24, ge=0, le=200, description="of the kept pictures")
