"""Pure DataFrame -> DataFrame functions: a module a pipeline, a function named as its table."""
