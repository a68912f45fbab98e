"""The tables that hold rows of a session."""

SESSION_TABLES = (
    "agent_sessions",
    "agent_states",
    "agent_state_values",
    "agent_state_blobs",
    "agent_state_writes",
    "agent_messages",
)
