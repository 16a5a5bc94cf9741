/*
 * sources: gateway/flume_thrift source/flume/head
 *
 * Thrift's calls in frames: in pieces they are what they are whole, and what was found lies within.
 */
#include "flume.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	server_start();
	flume_fuzz(&streamext_flume_thrift, data, size);
	server_reset();
	return 0;
}
