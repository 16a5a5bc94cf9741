/*
 * sources: durable/checkpoint_view view/key state/pane state/copy aggregate/aggregate aggregate/modes aggregate/native_mode aggregate/values aggregate/values_export aggregate/wire
 *
 * Rows of streamext_internal.checkpoint_log whose checksums are right, whatever is in them: the position row is refused or means
 * what it meant when it is written and read again; a view's rows are refused, or make a state that can be walked and exported.
 */
#include "fuzz.h"

#include "nodes/pg_list.h"
#include "utils/regproc.h"

#define streamext_checkpoint_log_fetch log_fetch_real
#include "durable/checkpoint_log.c"
#include "durable/checkpoint_position.c"
#undef streamext_checkpoint_log_fetch

#include "durable/checkpoint_state.h"

#define ROWS 6

static CheckpointRow rows[ROWS];

/* For the message that a state is damaged. */
char *
format_procedure(Oid procedure)
{
	return pstrdup("an aggregate");
}

extern void streamext_checkpoint_log_fetch(Relation rel, Snapshot snapshot, const CheckpointRef *ref,
										   CheckpointRow *row);

void
streamext_checkpoint_log_fetch(Relation rel, Snapshot snapshot, const CheckpointRef *ref, CheckpointRow *row)
{
	*row = rows[ref->part];
}

static void
checkpoint_position(FuzzInput *in)
{
	Size				size = in->size;
	char			   *data = fuzz_copy(in, size);
	CheckpointPosition *position, *again;
	StringInfoData		bytes;

	if (size >= sizeof(CheckpointPositionHead))
	{
		CheckpointPositionHead *head = (CheckpointPositionHead *) data;

		head->magic = POSITION_MAGIC;
		head->version = POSITION_VERSION;
	}
	position = streamext_checkpoint_decode(data, size);
	if (position == NULL)
		return;
	initStringInfo(&bytes);
	streamext_checkpoint_encode(&bytes, position);
	again = streamext_checkpoint_decode(bytes.data, bytes.len);
	REQUIRE(again != NULL && again->head.npartitions == position->head.npartitions);
	REQUIRE(again->tombstones == position->tombstones && again->mark_size == position->mark_size);
	for (int i = 0; i < position->head.npartitions; i++)
		REQUIRE(strncmp(again->partitions[i].topic, position->partitions[i].topic,
						sizeof(again->partitions[i].topic)) == 0 &&
				again->partitions[i].position == position->partitions[i].position);
	for (int i = 0; i < position->head.nviews; i++)
	{
		(void) streamext_checkpoint_settled(position, &position->views[i]);
		REQUIRE(streamext_checkpoint_find_view(position, position->views[i].head.viewoid) != NULL);
	}
}

static void
checkpoint_put(void *arg, const void *bytes, Size size)
{
	char *copy = palloc(size);

	memcpy(copy, bytes, size);
	pfree(copy);
}

static void
checkpoint_walk(const CompiledView *view, ViewState *state)
{
	for (int p = 0; p < state->npanes; p++)
		for (StateBlock *block = state->panes[p]->entries; block != NULL; block = block->next)
			for (uint32 at = 0; at < block->used;)
			{
				GroupEntry *entry = (GroupEntry *) (block->data + at);

				at += entry->size;
				for (int a = 0; a < view->naggs; a++)
					streamext_aggregate_export(&view->aggs[a], state, entry, true, checkpoint_put, NULL);
			}
}

static void
checkpoint_view(FuzzInput *in)
{
	KeySpec			key = { .typlen = -1, .bytewise = true };
	Aggref			aggref = { .aggfnoid = 1 };
	AggSpec			aggs[2] = { { .aggref = &aggref, .mode = AGG_NATIVE, .state_size = 8, .offset = 0 },
								{ .aggref = &aggref, .mode = AGG_VALUES, .offset = 8 } };
	CompiledView	view = { .nkeys = 1, .keys = &key, .window_key = -1, .set_key = -1, .aggs = aggs, .builtin = true };
	CheckpointRef	refs[ROWS] = { 0 };
	CheckpointIndex index = { .refs = refs };
	CheckpointView	from = { .head = { .viewoid = 7, .base = 1, .first_pane = -100 } };
	ViewState		state;
	ViewLoad		load = { .view = &view, .from = &from, .seq = 3, .state = &state, .index = &index };
	ListCell		cell = { 0 };
	List			args = { .type = T_List, .length = 1, .max_length = 1, .elements = &cell };

	view.naggs = 1 + fuzz_number(in, 2);
	aggs[1].state_size = 64;
	aggs[1].args = &args; /* only their number counts */
	view.state_size = view.naggs == 1 ? 8 : 72;
	streamext_state_init_private(&state, view.state_size, CurrentMemoryContext);
	for (int i = 0; i < ROWS && in->size > 0; i++)
	{
		rows[i].pane = (int) fuzz_number(in, 4) - 1;
		refs[i].seq = i == 0 ? 1 : refs[i - 1].seq + fuzz_number(in, 2);
		refs[i].kind = CHECKPOINT_ENTRIES;
		refs[i].part = i;
		refs[i].view = 7;
		rows[i].size = fuzz_size(in, 1024);
		rows[i].data = fuzz_copy(in, rows[i].size);
		index.n++;
		from.head.rows += refs[i].seq <= load.seq;
	}
	if (SERVER_TRY(streamext_checkpoint_load_view(&load)))
	{
		streamext_checkpoint_load_show(&load);
		checkpoint_walk(&view, &state);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };

	server_start();
	if (fuzz_number(&in, 2) == 0)
		checkpoint_position(&in);
	else
		checkpoint_view(&in);
	server_reset();
	return 0;
}
