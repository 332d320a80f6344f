"""Pure DataFrame -> DataFrame functions, one module a pipeline, one function a derived table, named after it."""
