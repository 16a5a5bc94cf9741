/*
 * aggregate/modes.c
 *		The table of the ways of keeping an aggregate.
 */
#include "postgres.h"

#include "aggregate/trans.h"
#include "aggregate/values.h"

static const AggModeOps trans_mode = {
	.start = streamext_trans_start,
	.prepare = streamext_trans_prepare,
	.try_begin = streamext_trans_try_begin,
	.try_row = streamext_trans_try_row,
	.try_end = streamext_trans_try_end,
	.try_undo = streamext_trans_try_undo,
	.try_finish = streamext_trans_try_finish,
	.publish = streamext_trans_publish,
	.forget = streamext_trans_forget,
	.forget_pane = streamext_trans_forget_pane,
	.export_size = streamext_trans_export_size,
	.export = streamext_trans_export,
	.import = streamext_trans_import,
	.reader = streamext_trans_reader,
	.empty = streamext_trans_empty,
	.load = streamext_trans_load,
	.copy = streamext_trans_copy,
	.combine = streamext_trans_combine,
	.final = streamext_trans_final,
	.give = streamext_trans_give,
	.take = streamext_trans_take,
	.send = streamext_trans_send,
	.receive = streamext_trans_receive,
};

static const AggModeOps values_mode = {
	.start = streamext_values_start,
	.prepare = streamext_values_prepare,
	.publish = streamext_values_publish,
	.forget = streamext_values_forget,
	.export_size = streamext_values_export_size,
	.export = streamext_values_export,
	.import = streamext_values_import,
	.import_end = streamext_values_import_end,
	.reader = streamext_values_reader,
	.load = streamext_values_load,
	.combine = streamext_values_combine,
	.final = streamext_values_final,
	.give = streamext_values_give,
	.take = streamext_values_take,
	.send = streamext_values_send,
	.receive = streamext_values_receive,
};

const AggModeOps *const streamext_modes[] = {
	[AGG_NATIVE] = &streamext_native_mode,
	[AGG_TRANS] = &trans_mode,
	[AGG_VALUES] = &values_mode,
};
