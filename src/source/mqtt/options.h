/*
 * source/mqtt/options.h
 *		The options of MQTT servers, user mappings and streams, for the connector's ops.
 */
#ifndef STREAMEXT_MQTT_OPTIONS_H
#define STREAMEXT_MQTT_OPTIONS_H

#include "base/option.h"
#include "base/record.h"
#include "base/stream_def.h"

extern const OptionSpec	  streamext_mqtt_options[];
extern const MetadataSpec streamext_mqtt_metadata[];

extern void streamext_mqtt_check_options(OptionPlace place, List *options);
extern void streamext_mqtt_configure(StreamConfig *config);
extern void streamext_mqtt_check(const StreamConfig *config);
extern void streamext_mqtt_doubt(const StreamConfig *config);
extern void streamext_mqtt_check_change(const char *name, List *before, List *after);
extern bool streamext_mqtt_own_metadata(const StreamRecord *record, const StreamColumn *column, const char **value,
										Size *size);

/* ConnectorOps.sample (source/mqtt/sample.c). */
struct SourceSample;
extern void streamext_mqtt_sample(const StreamConfig *config, struct SourceSample *sample);

#endif /* STREAMEXT_MQTT_OPTIONS_H */
