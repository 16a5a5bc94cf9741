/*
 * durable/checkpoint_seed.c
 *		Seeds (durable/checkpoint_seed.h) written, found, and told from what is of no use any more.
 *
 * Of a seed with round R there are rows of seq -R: 'I', pieces of a position row with this one view, and 'E', its groups as those of a checkpoint.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "base/label.h"
#include "base/transaction.h"
#include "durable/checkpoint_seed.h"
#include "durable/checkpoint_state.h"

/* ---- writing ---- */

/* An AggPut. */
static void
seed_put(void *arg, const void *bytes, Size size)
{
	appendBinaryStringInfo(arg, bytes, size);
}

/* Written whole rows at a time: a pane may be larger than what a StringInfo takes. */
static void
seed_write_pane(CheckpointWriter *writer, CheckpointRow *row, const CompiledView *view, const ViewState *state,
				const Pane *pane)
{
	PaneHead	   head = { .nrows = pane->nrows, .nentries = pane->ngroups };
	StringInfoData bytes;

	initStringInfo(&bytes);
	row->kind = CHECKPOINT_ENTRIES;
	row->pane = pane->id;
	appendBinaryStringInfo(&bytes, (char *) &head, sizeof(head));
	for (const StateBlock *block = pane->entries; block != NULL; block = block->next)
		for (uint32 at = 0; at < block->used;)
		{
			GroupEntry *entry = (GroupEntry *) (block->data + at);
			int			whole;

			CHECK_FOR_INTERRUPTS();
			streamext_checkpoint_put_entry(view, state, entry, true, false, seed_put, &bytes);
			at += entry->size;
			whole = bytes.len - bytes.len % CHECKPOINT_ROW_BYTES;
			if (whole > 0)
			{
				streamext_checkpoint_write_bytes(writer, row, bytes.data, whole);
				bytes.len -= whole;
				memmove(bytes.data, bytes.data + whole, bytes.len);
			}
		}
	streamext_checkpoint_write_bytes(writer, row, bytes.data, bytes.len);
	pfree(bytes.data);
}

static void
seed_fill_head(const CompiledView *view, int64 round, int rows, CheckpointViewHead *head)
{
	head->viewoid = view->relid;
	head->definition = view->definition;
	head->layout = view->layout;
	head->round = round;
	head->base = CHECKPOINT_SEED_SEQ(round);
	head->rows = rows;
	head->first_pane = PG_INT64_MIN;
	head->start_position = -1;
	head->horizon = DT_NOBEGIN;
	head->sealed = PG_INT64_MIN;
	head->sealed_until = DT_NOBEGIN;
	head->behind = true;
}

void
streamext_checkpoint_seed_write(const CompiledView *view, int shard, int64 round, CheckpointPosition *position,
								const ViewState *state)
{
	Relation	  rel = streamext_checkpoint_log_wait(RowExclusiveLock);
	CheckpointRow row = {
		.seq = CHECKPOINT_SEED_SEQ(round), .stream = view->stream_relid, .view = view->relid, .shard = shard
	};
	CheckpointWriter *writer;
	StringInfoData	  encoded;

	if (rel == NULL)
		elog(ERROR, "there is no log of checkpoints");
	Assert(round > 0 && position->head.nviews == 1);
	writer = streamext_checkpoint_writer(rel);
	for (int p = 0; state != NULL && p < state->npanes; p++)
		seed_write_pane(writer, &row, view, state, state->panes[p]);
	seed_fill_head(view, round, row.part, &position->views[0].head);
	position->head.dboid = MyDatabaseId;
	initStringInfo(&encoded);
	streamext_checkpoint_encode(&encoded, position);
	row.kind = CHECKPOINT_SEED;
	row.pane = 0;
	streamext_checkpoint_write_bytes(writer, &row, encoded.data, encoded.len);
	streamext_checkpoint_writer_end(writer);
	table_close(rel, NoLock);
}

/* ---- reading ---- */

static bool
seed_is_of(const CheckpointRef *ref, Oid viewoid, int64 seq)
{
	return ref->kind == CHECKPOINT_SEED && ref->view == viewoid && ref->seq == seq;
}

CheckpointPosition *
streamext_checkpoint_seed_find(Relation rel, Snapshot snapshot, const CheckpointIndex *refs, Oid viewoid, int64 round)
{
	int64				seq = 0;
	StringInfoData		bytes;
	CheckpointPosition *seed;

	/* ascending, so that the newest comes first */
	for (int i = 0; i < refs->n && refs->refs[i].seq < CHECKPOINT_SEED_SEQ(round) && seq == 0; i++)
		if (seed_is_of(&refs->refs[i], viewoid, refs->refs[i].seq))
			seq = refs->refs[i].seq;
	if (seq == 0)
		return NULL;
	initStringInfo(&bytes);
	for (int i = 0; i < refs->n && refs->refs[i].seq <= seq; i++)
	{
		CheckpointRow row;

		if (!seed_is_of(&refs->refs[i], viewoid, seq))
			continue;
		streamext_checkpoint_log_fetch(rel, snapshot, &refs->refs[i], &row);
		appendBinaryStringInfo(&bytes, row.data, row.size);
		pfree(row.data);
	}
	seed = streamext_checkpoint_decode(bytes.data, bytes.len);
	if (seed == NULL || seed->head.nviews != 1)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("what continuous view %s begins with is damaged", streamext_relation_label(viewoid))));
	seed->seq = seq;
	return seed;
}
