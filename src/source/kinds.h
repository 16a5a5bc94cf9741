/*
 * source/kinds.h
 *		The one table of kinds: a line for each connector. KIND(name) stands for streamext_<name>_ops, the foreign data wrapper of
 *		that name, and its validator streamext_<name>_validator. No guard: each reader defines KIND before it.
 */
KIND(kafka)
KIND(mqtt)
KIND(local)
KIND(http)
KIND(flume)
KIND(feed)
KIND(webhook)
KIND(null)
