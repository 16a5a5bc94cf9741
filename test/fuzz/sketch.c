/*
 * sources: aggregate/sketch aggregate/sketch_distinct aggregate/sketch_percentile
 *
 * Sketches from clients: refused, or what is made of them, by merging and adding, is a sketch that is accepted again.
 */
#include "fuzz.h"

#include "fmgr.h"
#include "libpq/pqformat.h"

typedef Datum (*SketchFunction)(FunctionCallInfo fcinfo);

extern Datum streamext_distinct_recv(FunctionCallInfo fcinfo), streamext_distinct_merge(FunctionCallInfo fcinfo),
	streamext_distinct_estimate(FunctionCallInfo fcinfo), streamext_percentile_recv(FunctionCallInfo fcinfo),
	streamext_percentile_merge(FunctionCallInfo fcinfo), streamext_percentile_of(FunctionCallInfo fcinfo),
	streamext_percentile_add(FunctionCallInfo fcinfo), streamext_percentile_final(FunctionCallInfo fcinfo);

static Datum
sketch_call(SketchFunction function, Datum a, Datum b)
{
	LOCAL_FCINFO(fcinfo, 2);

	InitFunctionCallInfoData(*fcinfo, NULL, 2, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = a;
	fcinfo->args[1].value = b;
	fcinfo->args[0].isnull = fcinfo->args[1].isnull = false;
	return function(fcinfo);
}

static Datum
sketch_receive(SketchFunction recv, const void *bytes, int size)
{
	StringInfoData buf = { memcpy(palloc(size), bytes, size), size, size, 0 };

	return sketch_call(recv, PointerGetDatum(&buf), 0);
}

static void
sketch_again(SketchFunction recv, Datum sketch)
{
	struct varlena *v = (struct varlena *) DatumGetPointer(sketch);

	REQUIRE(SERVER_TRY(sketch_receive(recv, VARDATA(v), VARSIZE(v) - VARHDRSZ)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput	   in = { data, size };
	bool		   distinct;
	SketchFunction recv, merge;
	volatile Datum a = 0, b = 0, merged = 0;
	double		   p, x;
	uint32		   first;

	server_start();
	distinct = fuzz_number(&in, 2) == 0;
	recv = distinct ? streamext_distinct_recv : streamext_percentile_recv;
	merge = distinct ? streamext_distinct_merge : streamext_percentile_merge;
	fuzz_bytes(&in, &x, sizeof(x));
	p = fuzz_number(&in, 256) / 255.0;
	first = fuzz_size(&in, 65536);
	if (SERVER_TRY(a = sketch_receive(recv, in.data, first)) &&
		SERVER_TRY(b = sketch_receive(recv, in.data + first, in.size - first)))
	{
		if (SERVER_TRY(merged = sketch_call(merge, a, b)))
			sketch_again(recv, merged);
		else
			merged = a;
		if (distinct)
			REQUIRE(DatumGetInt64(sketch_call(streamext_distinct_estimate, merged, 0)) >= 0);
		else
		{
			(void) SERVER_TRY(sketch_call(streamext_percentile_of, merged, Float8GetDatum(p)));
			(void) SERVER_TRY(sketch_call(streamext_percentile_final, merged, 0));
			if (SERVER_TRY(merged = sketch_call(streamext_percentile_add, merged, Float8GetDatum(x))))
				sketch_again(recv, merged);
		}
	}
	server_reset();
	return 0;
}

/* ---- the server's ---- */

void
pq_copymsgbytes(StringInfo msg, char *buf, int size)
{
	memcpy(buf, msg->data + msg->cursor, size);
	msg->cursor += size;
}

int
AggCheckCallContext(FunctionCallInfo fcinfo, MemoryContext *context)
{
	return 0;
}
