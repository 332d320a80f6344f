"""Publishes days of the lake to PostgreSQL, when NIGHTSHIFT_WAREHOUSE_URL is set.

The lake is what counts. PostgreSQL follows it: each day in one transaction, fenced by the
publication that is in force, and what an outage left out the next night makes up for.
"""
