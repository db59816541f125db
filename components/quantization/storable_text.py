"""Text without backslashes, for properties in ML Metadata.

Its client for PostgreSQL writes wrong SQL for a string with one, and the execution is lost: of JSON in JSON, say.
https://github.com/google/ml-metadata/blob/v1.16.0/ml_metadata/metadata_store/postgresql_metadata_source.cc
"""


def without_backslashes(text: str) -> str:
    r"""Returns a text with each backslash as %5C, and each % as %25.

    >>> without_backslashes(r'{"of": "{\"rate\": 5}"}')
    '{"of": "{%5C"rate%5C": 5}"}'
    """
    return text.replace("%", "%25").replace("\\", "%5C")


def with_backslashes(text: str) -> str:
    """Returns what `without_backslashes` was given."""
    return text.replace("%5C", "\\").replace("%25", "%")
