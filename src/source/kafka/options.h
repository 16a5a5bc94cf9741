/*
 * source/kafka/options.h
 *		The options of Kafka servers, user mappings and streams, for the connector's ops.
 */
#ifndef STREAMEXT_KAFKA_OPTIONS_H
#define STREAMEXT_KAFKA_OPTIONS_H

#include "base/option.h"
#include "base/stream_def.h"

extern const OptionSpec	  streamext_kafka_options[];
extern const MetadataSpec streamext_kafka_metadata[];

extern void streamext_kafka_check_options(OptionPlace place, List *options);
extern void streamext_kafka_configure(StreamConfig *config);
extern void streamext_kafka_doubt(const StreamConfig *config);

#endif /* STREAMEXT_KAFKA_OPTIONS_H */
