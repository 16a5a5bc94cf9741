/*
 * gateway/kinds.h
 *		The one table of protocols: KIND(name) stands for streamext_<name>_gateway. No guard: each reader defines KIND before it.
 */
KIND(http)
KIND(flume)
