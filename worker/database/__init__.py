"""The only folder that makes engines and sessions."""
