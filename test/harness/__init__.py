"""Throwaway servers for the tests, the demo and the benchmarks: PostgreSQL, Kafka, mosquitto."""
