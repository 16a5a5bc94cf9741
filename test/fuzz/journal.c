/*
 * sources: source/journal/journal source/journal/recover source/journal/record source/journal/segment source/journal/append source/journal/read
 * flags: -include test/fuzz/files.h -DJOURNAL_SEGMENT=INT64CONST(16384) -DJOURNAL_BUFFER=4096
 *
 * A journal's files as a crash, a full disk or a forger leaves them: records that were appended, bytes that were changed, ends
 * that were cut off, records with a right checksum and wrong contents. Opening, reading, aligning and trimming never
 * leave the file's bytes, never give a record that reaches beyond the end, and what is appended then can be read.
 */
#include "fuzz.h"

#include "miscadmin.h"

#include "source/journal/journal_private.h"

#define FUZZ_FILES
#include "files.h"

/* Layouts are checked as in the server, and kept for one input only. */
#define streamext_layout_intern layout_intern_real
#include "base/layout.c"
#undef streamext_layout_intern

extern const RowLayout *streamext_layout_intern(const void *bytes, Size size);

const RowLayout *
streamext_layout_intern(const void *bytes, Size size)
{
	if (!layout_is_sane(bytes, size))
		return NULL;
	return memcpy(palloc(((const RowLayout *) bytes)->size), bytes, ((const RowLayout *) bytes)->size);
}

/* A sane one, of n types and as many attributes. */
static const RowLayout *
journal_a_layout(int n)
{
	Size	   size = sizeof(RowLayout) + n * (sizeof(LayoutType) + sizeof(LayoutAttribute));
	RowLayout *layout = palloc0(size);

	layout->magic = LAYOUT_MAGIC;
	layout->size = size;
	layout->ntypes = layout->natts = n;
	return layout;
}

static pg_atomic_uint64 end;

static Journal *
journal_start(FuzzInput *in)
{
	JournalPlace place = { .dboid = 1, .relid = 2, .mode = JOURNAL_OS, .end = &end };

	pg_atomic_init_u64(&end, JOURNAL_UNKNOWN);
	place.floor = fuzz_number(in, 16) == 0 ? (int64) fuzz_number(in, 3) * JOURNAL_SEGMENT / 2 : 0;
	return streamext_journal_open(&place, true);
}

static void
journal_read(Journal *journal, int64 from)
{
	JournalRecord records[5];
	bool		  corrupt;
	int			  n;
	int64		  last = streamext_journal_end(journal);

	REQUIRE(streamext_journal_align(journal, from) >= from);
	while ((n = streamext_journal_read(journal, &from, records, lengthof(records), &corrupt)) > 0)
		for (int i = 0; i < n; i++)
		{
			char *copy = palloc(records[i].payload_size + records[i].topic_size + 1);

			REQUIRE(records[i].next_position > records[i].position && records[i].next_position <= Max(last, from));
			memcpy(copy, records[i].payload, records[i].payload_size);
			memcpy(copy, records[i].topic, records[i].topic_size + 1);
			if (records[i].layout != NULL)
				REQUIRE(layout_is_sane(records[i].layout, records[i].layout->size));
			pfree(copy);
		}
}

/* Bytes at a place in the first file; forge: a whole record of this place, its checksum right. */
static void
journal_change(FuzzInput *in, bool forge)
{
	Journal		   where;
	char		   path[JOURNAL_PATH_SIZE], bytes[512];
	JournalHeader *header = (JournalHeader *) bytes;
	int64		   at = fuzz_number(in, 4096);
	size_t		   size = forge ? sizeof(bytes) : fuzz_number(in, 64);
	int			   fd;

	streamext_journal_directory(1, 2, 0, where.directory);
	streamext_journal_path(&where, 0, path);
	fuzz_bytes(in, bytes, size);
	if (forge)
	{
		at &= ~7;
		header->magic = header->magic % 2 == 0 ? JOURNAL_MAGIC : JOURNAL_MAGIC_ROW;
		if (header->layout % 4 == 0)
			header->layout = at;
		header->position = at;
		header->kind = header->kind % 3;
		if (header->magic == JOURNAL_MAGIC_ROW && header->layout == at && header->timestamp % 2 == 0)
		{
			header->payload_size = header->topic_size = 7;
			memcpy(bytes + journal_layout_offset(header), journal_a_layout(2), journal_a_layout(2)->size);
			header->size = journal_layout_offset(header) + journal_a_layout(2)->size;
		}
		if (header->size > sizeof(bytes) || header->size < sizeof(JournalHeader))
			header->size = JOURNAL_ALIGN(sizeof(JournalHeader) + header->size % 256);
		if (header->payload_size > sizeof(bytes))
			header->payload_size = header->size - sizeof(JournalHeader) - header->topic_size - 1;
		header->crc = streamext_journal_crc(header, bytes + sizeof(JournalHeader));
		size = header->size;
	}
	fd = open(path, O_RDWR | O_CREAT, 0600);
	(void) pwrite(fd, bytes, size, at);
	if (!forge && fuzz_number(in, 8) == 0)
		(void) ftruncate(fd, at);
	close(fd);
}

static void
journal_append(FuzzInput *in, Journal *journal)
{
	JournalRecord record = { .topic = "t", .topic_size = fuzz_number(in, 2) };
	int64		  before = streamext_journal_end(journal);

	record.fxid = fuzz_number(in, 4) == 0 ? fuzz_number(in, 1200) : 0;
	record.payload_size = fuzz_size(in, 300);
	record.payload = fuzz_copy(in, record.payload_size);
	if (fuzz_number(in, 3) == 0)
		record.layout = journal_a_layout(1 + fuzz_number(in, 3));
	REQUIRE(streamext_journal_append(journal, &record, 1));
	REQUIRE(streamext_journal_end(journal) > before);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };
	Journal	 *journal;

	server_start();
	DataDir = "/data";
	files_clean();
	journal = journal_start(&in);
	for (int step = 0; step < 24 && journal != NULL && in.size > 0; step++)
		switch (fuzz_number(&in, 8))
		{
			case 0:
			case 1:
			case 2:
				journal_append(&in, journal);
				break;
			case 3:
				journal_change(&in, false);
				break;
			case 4:
				journal_change(&in, true);
				break;
			case 5:
				streamext_journal_close(journal);
				journal = journal_start(&in);
				break;
			case 6:
				journal_read(journal, fuzz_number(&in, 2048) * 8);
				break;
			case 7:
				streamext_journal_trim(journal, fuzz_number(&in, 3) * JOURNAL_SEGMENT);
				break;
		}
	if (journal != NULL)
	{
		journal_read(journal, 0);
		journal_append(&in, journal);
	}
	streamext_journal_close(journal);
	server_reset();
	return 0;
}
