/*
 * fuzz/files.h
 *		Files in memory for what a target links (flags: -include test/fuzz/files.h): system calls were two thirds of an execution's time.
 *		One target includes it again with FUZZ_FILES defined and has the files. No errors but ENOENT; directories are all there.
 */
#ifndef STREAMEXT_FUZZ_FILES_H
#define STREAMEXT_FUZZ_FILES_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern int			  files_open(const char *path, int flags, mode_t mode);
extern int			  files_close(int fd);
extern ssize_t		  files_pread(int fd, void *to, size_t size, off_t at);
extern ssize_t		  files_pwrite(int fd, const void *from, size_t size, off_t at);
extern int			  files_ftruncate(int fd, off_t size);
extern int			  files_truncate(const char *path, off_t size);
extern int			  files_unlink(const char *path);
extern int			  files_stat(const char *path, struct stat *st);
extern struct dirent *files_readdir(DIR *dir);
extern void			  files_clean(void);

#define open(path, flags, ...) files_open(path, flags, 0)
#define close(fd) files_close(fd)
#define pread(fd, to, size, at) files_pread(fd, to, size, at)
#define pwrite(fd, from, size, at) files_pwrite(fd, from, size, at)
#define ftruncate(fd, size) files_ftruncate(fd, size)
#define truncate(path, size) files_truncate(path, size)
#define unlink(path) files_unlink(path)
#define stat(path, st) files_stat(path, st)
#define mkdir(path, mode) 0
#define fsync(fd) 0
#define opendir(path) (files_readdir(NULL), (DIR *) 1)
#define readdir(dir) files_readdir(dir)
#define closedir(dir) ((void) (dir))

#endif /* STREAMEXT_FUZZ_FILES_H */

#ifdef FUZZ_FILES
#undef FUZZ_FILES

#define FILES_MAX 64

typedef struct FuzzFile
{
	char		  name[32]; /* the last part of its path; empty: unlinked */
	char		 *bytes;
	size_t		  size, capacity;
	int			  opened;
	struct dirent entry;
} FuzzFile;

static FuzzFile files[FILES_MAX];
static int		files_listed;

/* NULL: there is none. */
static FuzzFile *
files_find(const char *path)
{
	const char *name = strrchr(path, '/') + 1;

	for (int i = 0; i < FILES_MAX; i++)
		if (files[i].name[0] != '\0' && strcmp(files[i].name, name) == 0)
			return &files[i];
	errno = ENOENT;
	return NULL;
}

static void
files_free(FuzzFile *file)
{
	if (file->opened > 0 || file->name[0] != '\0')
		return;
	free(file->bytes);
	memset(file, 0, sizeof(FuzzFile));
}

static void
files_resize(FuzzFile *file, size_t size)
{
	if (size > file->capacity || file->bytes == NULL)
		file->bytes = realloc(file->bytes, (file->capacity = Max(size, 4096)));
	if (size > file->size)
		memset(file->bytes + file->size, 0, size - file->size);
	file->size = size;
}

static FuzzFile *
files_create(const char *path)
{
	for (int i = 0; i < FILES_MAX; i++)
		if (files[i].name[0] == '\0' && files[i].opened == 0)
		{
			strlcpy(files[i].name, strrchr(path, '/') + 1, sizeof(files[i].name));
			return &files[i];
		}
	abort();
}

int
files_open(const char *path, int flags, mode_t mode)
{
	FuzzFile *file = files_find(path);

	if (file == NULL && !(flags & O_CREAT))
		return -1;
	if (file == NULL)
		file = files_create(path);
	if (flags & O_TRUNC)
		files_resize(file, 0);
	file->opened++;
	return file - files;
}

int
files_close(int fd)
{
	if (fd < 0 || fd >= FILES_MAX || files[fd].opened == 0)
		abort();
	files[fd].opened--;
	files_free(&files[fd]);
	return 0;
}

ssize_t
files_pread(int fd, void *to, size_t size, off_t at)
{
	FuzzFile *file = &files[fd];

	if (at < 0 || file->opened == 0)
		abort();
	if ((size_t) at >= file->size)
		return 0;
	size = Min(size, file->size - at);
	memcpy(to, file->bytes + at, size);
	return size;
}

ssize_t
files_pwrite(int fd, const void *from, size_t size, off_t at)
{
	FuzzFile *file = &files[fd];

	if (at < 0 || file->opened == 0)
		abort();
	files_resize(file, Max(at + size, file->size));
	memcpy(file->bytes + at, from, size);
	return size;
}

int
files_ftruncate(int fd, off_t size)
{
	files_resize(&files[fd], size);
	return 0;
}

int
files_truncate(const char *path, off_t size)
{
	FuzzFile *file = files_find(path);

	return file == NULL ? -1 : files_ftruncate(file - files, size);
}

int
files_unlink(const char *path)
{
	FuzzFile *file = files_find(path);

	if (file == NULL)
		return -1;
	file->name[0] = '\0';
	files_free(file);
	return 0;
}

int
files_stat(const char *path, struct stat *st)
{
	FuzzFile *file = files_find(path);

	if (file == NULL)
		return -1;
	memset(st, 0, sizeof(*st));
	st->st_size = file->size;
	st->st_blocks = (file->size + 511) / 512;
	return 0;
}

/* NULL: from the first on. */
struct dirent *
files_readdir(DIR *dir)
{
	if (dir == NULL)
		files_listed = 0;
	while (dir != NULL && files_listed < FILES_MAX)
	{
		FuzzFile *file = &files[files_listed++];

		if (file->name[0] == '\0')
			continue;
		strlcpy(file->entry.d_name, file->name, sizeof(file->entry.d_name));
		return &file->entry;
	}
	return NULL;
}

/* Of the input before: none is open any more. */
void
files_clean(void)
{
	for (int i = 0; i < FILES_MAX; i++)
	{
		if (files[i].opened > 0)
			abort();
		files[i].name[0] = '\0';
		files_free(&files[i]);
	}
}
#endif /* FUZZ_FILES */
