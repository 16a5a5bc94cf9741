/*
 * source/flume/options.c
 *		The options of Flume servers and their streams.
 */
#include "base/streamext.h"

#include "source/flume/flume.h"
#include "source/listen.h"
#include "source/siblings.h"

#define FLUME_MAX_TOPIC 255

static const char *const words_protocol[] = { "avro", "thrift", NULL };

static void
flume_check_topic(const OptionSpec *spec, const char *value)
{
	if (strlen(value) > FLUME_MAX_TOPIC)
		streamext_option_invalid(spec, value, "The value must have at most %d bytes.", FLUME_MAX_TOPIC);
}

const OptionSpec streamext_flume_options[] = {
	{ "listen", PLACE_SERVER, OPTION_TEXT, .required = true, .check = streamext_listen_check },
	{ "protocol", PLACE_SERVER, OPTION_ENUM, words_protocol, .preset = FLUME_AVRO },

	{ "topic", PLACE_TABLE, OPTION_TEXT, .fixed = true, .check = flume_check_topic },
	{ "journal", PLACE_TABLE, OPTION_ENUM, streamext_words_journal, .preset = JOURNAL_OS },
	{ NULL },
};

char *
streamext_flume_topic(List *table_options, const char *schema, const char *name)
{
	const char *topic = streamext_option(table_options, "topic");

	return pstrdup(topic != NULL ? topic : "");
}

void
streamext_flume_configure(StreamConfig *config)
{
	config->source.journal =
		(JournalMode) streamext_option_number(streamext_flume_options, PLACE_TABLE, config->table_options, "journal");
}

void
streamext_flume_check(const StreamConfig *config)
{
	char *topic = streamext_flume_topic(config->table_options, config->schema, config->name);
	char *other = streamext_sibling_named(config, topic, streamext_flume_topic);

	if (config->source.journal == JOURNAL_NONE)
		ereport(
			NOTICE,
			(errmsg("with journal none a crash may lose events of stream \"%s\" that were acknowledged", config->name),
			 errdetail("Its journal is not kept until a checkpoint holds what was counted."),
			 errhint(
				 "Set the option journal to os, which survives the crash of any process, or fsync, which survives the machine's.")));
	if (other == NULL)
		return;
	if (topic[0] != '\0')
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("topic \"%s\" of the server is taken", topic),
						errdetail("Stream \"%s\" has it.", other), errhint("Set the option topic to another one.")));
	ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("the server has a stream without a topic already"),
					errdetail("Stream \"%s\" takes all events that no other stream takes.", other),
					errhint("Set the option topic to what the event's header topic is.")));
}
