/*
 * source/journal/record.c
 *		One record of a journal's files: whole, checked, in the read buffer; the layout that one carries.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "source/journal/journal_private.h"

uint32
streamext_journal_crc(const JournalHeader *header, const char *body)
{
	JournalHeader plain = *header;
	pg_crc32c	  crc;

	plain.hint = 0;
	INIT_CRC32C(crc);
	if (header->magic == JOURNAL_MAGIC_ROW)
		COMP_CRC32C(crc, &plain.magic, sizeof(plain.magic));
	COMP_CRC32C(crc, (const char *) &plain + offsetof(JournalHeader, size),
				sizeof(plain) - offsetof(JournalHeader, size));
	if (header->size > sizeof(JournalHeader))
		COMP_CRC32C(crc, body, header->size - sizeof(JournalHeader));
	FIN_CRC32C(crc);
	return crc;
}

static bool
journal_header_plausible(const JournalHeader *header, int64 position, int64 limit)
{
	if ((header->magic != JOURNAL_MAGIC && header->magic != JOURNAL_MAGIC_ROW) || header->position != position)
		return false;
	if (header->kind == JOURNAL_PAD)
		return header->size == sizeof(JournalHeader) && header->magic == JOURNAL_MAGIC;
	/* the next record is aligned */
	if (header->kind != JOURNAL_DATA || header->size > limit - position || header->size != JOURNAL_ALIGN(header->size))
		return false;
	if (journal_carries_layout(header))
		return header->size >= journal_layout_offset(header) + sizeof(RowLayout);
	return header->size == journal_layout_offset(header);
}

/* Reads at least `need` bytes at position into the buffer, more if they are there below limit; false and errno on failure. */
static bool
journal_fill(Journal *journal, int64 position, size_t need, int64 limit)
{
	int64  first = JOURNAL_FIRST(position);
	size_t want;

	journal->read.size = 0;
	if (journal->read.fd < 0 || journal->read.first != first)
	{
		if (journal->read.fd >= 0)
			close(journal->read.fd);
		journal->read.fd = streamext_journal_open_file(journal, first, O_RDWR);
		if (journal->read.fd < 0 && (errno == EACCES || errno == EROFS))
			journal->read.fd = streamext_journal_open_file(journal, first, O_RDONLY);
		journal->read.first = first;
		if (journal->read.fd < 0)
			return false;
	}

	/* A buffer grown for a large record is given back with the next. */
	want = Max(need, JOURNAL_BUFFER);
	if (journal->read.capacity != want)
	{
		free(journal->read.buffer);
		journal->read.capacity = 0;
		journal->read.buffer = malloc(want);
		if (journal->read.buffer == NULL)
		{
			errno = ENOMEM;
			return false;
		}
		journal->read.capacity = want;
	}

	want = Min((int64) want, limit - position);
	journal->read.position = position;
	while (journal->read.size < want)
	{
		ssize_t got = pread(journal->read.fd, journal->read.buffer + journal->read.size, want - journal->read.size,
							position - first + journal->read.size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		if (got == 0)
			break;
		journal->read.size += got;
	}
	errno = EBADMSG;
	return journal->read.size >= need;
}

JournalHeader *
streamext_journal_fetch(Journal *journal, int64 position, int64 limit, bool refill)
{
	size_t need = sizeof(JournalHeader);

	for (;;)
	{
		JournalHeader *header;

		if (position + (int64) need > limit)
		{
			errno = EBADMSG;
			return NULL;
		}
		if (journal->read.size == 0 || position < journal->read.position ||
			position + (int64) need > journal->read.position + (int64) journal->read.size)
		{
			if (!refill)
			{
				errno = EAGAIN;
				return NULL;
			}
			if (!journal_fill(journal, position, need, limit))
				return NULL;
		}

		header = (JournalHeader *) (journal->read.buffer + (position - journal->read.position));
		if (!journal_header_plausible(header, position, limit))
		{
			errno = EBADMSG;
			return NULL;
		}
		if (need == header->size)
		{
			journal->checked += need;
			if (header->crc == streamext_journal_crc(header, (char *) (header + 1)))
				return header;
			errno = EBADMSG;
			return NULL;
		}
		need = header->size;
	}
}

static bool
journal_pread(int fd, void *to, size_t size, off_t at)
{
	size_t done = 0;

	while (done < size)
	{
		ssize_t got = pread(fd, (char *) to + done, size - done, at + done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
		{
			if (got == 0)
				errno = EBADMSG;
			return false;
		}
		done += got;
	}
	return true;
}

RowLayout *
streamext_journal_load_layout(int fd, int64 first, int64 position, int64 limit, JournalHeader *header)
{
	char	  *body;
	RowLayout *layout;
	size_t	   size;

	if (!journal_pread(fd, header, sizeof(*header), position - first))
		return NULL;
	errno = EBADMSG;
	if (!journal_header_plausible(header, position, limit) || !journal_carries_layout(header))
		return NULL;
	size = header->size - sizeof(*header);
	body = malloc(size);
	if (body == NULL)
		return NULL;
	layout = (RowLayout *) (body + (journal_layout_offset(header) - sizeof(*header)));
	if (!journal_pread(fd, body, size, position - first + sizeof(*header)) ||
		header->crc != streamext_journal_crc(header, body) || layout->magic != LAYOUT_MAGIC ||
		layout->size > (size_t) (body + size - (char *) layout))
	{
		free(body);
		errno = EBADMSG;
		return NULL;
	}
	memmove(body, layout, layout->size);
	return (RowLayout *) body;
}
