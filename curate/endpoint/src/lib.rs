//! Requests to OpenAI-compatible endpoints: limits, retries, cost, and a cache that never pays twice.
