"""Tables, files, reports and models in an object store: moto's S3, on loopback, with faults."""
