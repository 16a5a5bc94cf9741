/*
 * sink/transports.h
 *		The one table of transports: a line for each. TRANSPORT(name) stands for streamext_<name>_transport. No guard: each reader
 *		defines TRANSPORT before it.
 */
TRANSPORT(kafka)
TRANSPORT(mqtt)
TRANSPORT(webhook)
