"""The matrix file: YAML with line numbers, typed models, errors that name file, line and key, and cells out of axes."""
