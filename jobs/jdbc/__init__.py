"""The service `jdbc`: Spark's Thrift server, at which programs that speak JDBC or ODBC read tables.

It is a Spark of its own, beside the one that computes: it only reads, and may be stopped alone.
"""
