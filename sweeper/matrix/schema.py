"""JSON Schema of the matrix file, for editors; made from the models that check the file."""

from __future__ import annotations

import json

from sweeper.matrix.models import MatrixFile


def schema_text() -> str:
    """Draft 2020-12, keys in a fixed order, ends with a newline; the text of matrices/matrix.schema.json."""
    schema = MatrixFile.model_json_schema(mode="validation")
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "sweeper matrix"}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
