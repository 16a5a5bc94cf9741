/*
 * sink/kinds.h
 *		The one table of sinks: a line for each. SINK(name) stands for streamext_<name>_sink. No guard: each reader defines SINK before it.
 */
SINK(table)
SINK(view)
