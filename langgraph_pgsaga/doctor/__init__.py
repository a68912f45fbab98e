"""What is wrong with a database, told before it is noticed."""

from langgraph_pgsaga.doctor.doctor import Check, CheckStatus, Diagnosis, diagnose

__all__ = ["Check", "CheckStatus", "Diagnosis", "diagnose"]
