/*
 * source/local/local.c
 *		The source without an outside system: rows that INSERT and COPY put into the stream's journal at commit (sink/spool.c).
 *
 * One partition ("local", 0), an inbox and no more; what continuous views over others read is one too, of blocks. The committing
 * backend sets the worker's latch, so there is no descriptor to wait on.
 */
#include "base/streamext.h"

#include "source/journal/block.h"

static const OptionSpec local_options[] = {
	{ "journal", PLACE_TABLE, OPTION_ENUM, &streamext_words_journal[JOURNAL_OS], .preset = JOURNAL_OS - JOURNAL_OS },
	{ NULL },
};

static void
local_configure(StreamConfig *config)
{
	config->source.journal = (JournalMode) (JOURNAL_OS + streamext_option_number(local_options, PLACE_TABLE,
																				 config->table_options, "journal"));
}

static Connector *
local_open(const ConnectorOpen *args)
{
	return streamext_inbox_open(&streamext_local_ops, args, "local");
}

/* Its rows come from the worker of another stream, which sets the latch likewise; many at once, and in blocks they are half the bytes. */
static Connector *
local_open_view(const ConnectorOpen *args)
{
	return streamext_block_open(&streamext_view_ops, args, "view", 0);
}

const ConnectorOps streamext_view_ops = {
	.name = "view",
	.number = 100,
	.journaled = true,
	.pushed = true,
	.blocks = true,
	.sets_latch = true,
	.open = local_open_view,
	.poll = streamext_block_poll,
	.commit = streamext_inbox_commit,
	STREAMEXT_BLOCK_OPS,
};

const ConnectorOps streamext_local_ops = {
	.name = "local",
	.number = 3,
	.journaled = true,
	.pushed = true,
	.writable = true,
	.sets_latch = true,
	.options = local_options,
	.configure = local_configure,
	.open = local_open,
	.poll = streamext_inbox_poll,
	.commit = streamext_inbox_commit,
	STREAMEXT_INBOX_OPS,
};
